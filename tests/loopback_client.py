"""Fixtures: the hub of loopback.py, and huggingface_hub's own client turned towards it."""

import json

import pytest
import torch
from huggingface_hub import constants
from loopback import Hub
from safetensors.torch import save

from nanoserve.checkpoints import hub as our_hub
from nanoserve.checkpoints import weights_dir
from nanoserve.cli import main

NAME, BIG = "llama-3.2-1b", "model.safetensors"
TOKEN = "hf_" + "secret" * 5


@pytest.fixture(scope="module")
def hub_files():
    weights = {
        "model.norm.weight": torch.rand(8),
        "model.embed_tokens.weight": torch.rand(800, 800),
    }
    return {
        "README.md": b"# read me",
        "config.json": json.dumps({"model_type": "llama"}).encode(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b"{}",
        "original/consolidated.00.pth": b"a pickle",
        "original/params.json": b"{}",
        "../outside.safetensors": b"escaped",
        BIG: save(weights, metadata={"format": "pt"}),
    }


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOSERVE_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def hub(hub_files, weights, tmp_path, monkeypatch):
    """A hub, and the client set up for it as its environment variables would."""
    hub = Hub(our_hub.REPO, dict(hub_files))
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield hub
    hub.close()


def failed(capsys, *parts):
    """Run the command; it fails with one message that holds every part, and leaves no folder."""
    assert main(["download", NAME]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1
    for part in parts:
        assert part in err
    assert "Traceback" not in err and TOKEN not in err
    assert not (weights_dir() / NAME).exists()
    return err


def succeeded(hub, capsys):
    assert main(["download", NAME]) == 0, capsys.readouterr().err
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", BIG):
        assert (weights_dir() / NAME / name).read_bytes() == hub.files[name]
    assert capsys.readouterr().out.startswith(f"{NAME} is complete: ")
