"""Small checkpoints to break, and what must then be true of the refusal."""

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from tiny import save_tiny

from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.config import ConfigError, ModelConfig
from nanoserve.loader import load_weights
from nanoserve.model import Llama

UP = "model.layers.1.mlp.up_proj.weight"
NORM = "model.norm.weight"
FILES = ["config.json", "model.safetensors", "model.safetensors.index.json"]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A sound checkpoint in one file, and one in shards."""
    folder = tmp_path_factory.mktemp("good")
    save_tiny(folder / "one")
    save_tiny(folder / "shards", shard="30KB")
    return folder


@pytest.fixture
def one(good, tmp_path):
    return Path(shutil.copytree(good / "one", tmp_path / "one"))


@pytest.fixture
def shards(good, tmp_path):
    return Path(shutil.copytree(good / "shards", tmp_path / "shards"))


@pytest.fixture
def model(good):
    model = Llama(ModelConfig.from_pretrained(good / "one"))
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 7.0)
    return model


def refused(model, folder, *texts, error=CheckpointError):
    """Loading fails with all of `texts` in at most 20 lines, and changes no byte of the model."""
    with pytest.raises(error) as caught:
        load_weights(model, folder)
    message = str(caught.value)
    for text in texts:
        assert text in message, message
    lines = message.split("\n")
    assert len(lines) <= 20 and all(line.isprintable() and len(line) < 700 for line in lines)
    assert all((parameter == 7.0).all() for parameter in model.parameters())
    return message


def header_of(file: Path) -> tuple[dict, bytes]:
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(file: Path, header, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def changed(folder: Path, name: str, **fields) -> None:
    """Change one header entry of a one-file checkpoint."""
    header, data = header_of(folder / "model.safetensors")
    header[name] |= fields
    write(folder / "model.safetensors", header, data)


def index_changed(folder: Path, name: str, file) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][name] = file
    path.write_text(json.dumps(index))


def folder_and_error(name, one, shards):
    """A checkpoint that holds the file, and what is raised where that is bad."""
    return (shards if "index" in name else one), (ConfigError if "config" in name else None)
