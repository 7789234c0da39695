"""Checkpoints that may not be read: which file, and why."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import broken
import pytest
import torch
from broken import FILES, folder_and_error, refused

from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.config import ConfigError
from nanoserve.loader import load_weights, read_index

# pytest finds a fixture by its name in the module.
good, one, shards, model = broken.good, broken.one, broken.shards, broken.model


@contextmanager
def nobody(folder):
    """A copy of the folder, read by one who is not root: root may read everything."""
    home = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    home.chmod(0o755)
    copy = Path(shutil.copytree(folder, home / "checkpoint"))
    for path in copy.iterdir():
        path.chmod(0o644)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield copy, os.chmod if not root else as_root(os.chmod)
    finally:
        if root:
            os.seteuid(0)
        for path in (copy, *copy.iterdir()):
            path.chmod(0o755)
        shutil.rmtree(home)


def as_root(function):
    def call(*args):
        os.seteuid(0)
        function(*args)
        os.seteuid(65534)

    return call


@pytest.mark.parametrize("name", [*FILES, ""])
def test_no_read_permission(one, shards, model, name):
    folder, error = folder_and_error(name, one, shards)
    error = CheckpointError if name and not error else ConfigError
    with nobody(folder) as (copy, chmod):
        assert load_weights(model, copy) == []
        for parameter in model.parameters():
            torch.nn.init.constant_(parameter, 7.0)
        chmod(copy / name, 0)
        text = "cannot be read: Permission denied"
        refused(model, copy, f"{name or 'config.json'} {text}", error=error)


def test_a_folder_that_may_not_be_listed_or_entered(one):
    (one / "model.safetensors").rename(one / "pytorch_model.bin")
    with nobody(one) as (copy, chmod):
        for mode, text in ((0o555, "a pickle"), (0o111, "no index: get"), (0, "Permission")):
            chmod(copy, mode)
            with pytest.raises(CheckpointError, match=text):
                read_index(copy)
