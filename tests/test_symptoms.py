"""Every message quoted in "When it does not work" is one that the code really says."""

import re
from pathlib import Path

import pytest
import torch
from tiny import save_tiny, tiny_config

from nanoserve.checkpoints import checkpoint_path
from nanoserve.config import ConfigError, ModelConfig
from nanoserve.headers import CheckpointError
from nanoserve.loader import load_weights
from nanoserve.model import Llama
from nanoserve.reference import compare

PAGE = Path(__file__).resolve().parent.parent / "book" / "when-it-does-not-work.md"


def quoted() -> list[str]:
    """The page's quoted messages."""
    return [line[2:] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("> ")]


def no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOSERVE_CHECKPOINT", "nonsense")
    checkpoint_path()


def no_folder(tmp_path, monkeypatch):
    ModelConfig.from_pretrained(tmp_path / "nowhere")


def broken(tmp_path, change):
    save_tiny(tmp_path / "tiny")
    model = Llama.from_pretrained(tmp_path / "tiny")
    change(tmp_path / "tiny" / "model.safetensors")
    load_weights(model, tmp_path / "tiny")


def cut_short(tmp_path, monkeypatch):
    broken(tmp_path, lambda file: file.write_bytes(file.read_bytes()[:100]))


def a_pickle(tmp_path, monkeypatch):
    broken(tmp_path, lambda file: file.rename(file.with_name("pytorch_model.bin")))


def another_model(tmp_path, monkeypatch):
    def rename(file):
        file.write_bytes(
            file.read_bytes().replace(b"layers.1.mlp.up_proj", b"layers.7.mlp.up_proj")
        )

    broken(tmp_path, rename)


def refused(change):
    def provoke(tmp_path, monkeypatch):
        ModelConfig.from_dict(tiny_config().to_dict() | change)

    return provoke


def no_match(tmp_path, monkeypatch):
    compare("a piece", torch.zeros(3), torch.ones(3))


PROVOKED = [
    no_checkpoint,
    no_folder,
    cut_short,
    a_pickle,
    another_model,
    another_model,
    refused({"hidden_act": "gelu"}),
    refused({"rope_parameters": None, "rope_scaling": {"rope_type": "yarn"}}),
    refused({"model_type": "mistral"}),
    no_match,
]


@pytest.mark.parametrize(("message", "provoke"), list(zip(quoted(), PROVOKED, strict=True)))
def test_the_message_is_said(message, provoke, tmp_path, monkeypatch):
    with pytest.raises((CheckpointError, ConfigError, AssertionError)) as error:
        provoke(tmp_path, monkeypatch)
    pattern = ".*".join(map(re.escape, message.split("...")))
    assert re.search(pattern, str(error.value), re.DOTALL), str(error.value)
