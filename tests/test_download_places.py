"""Disks without locks, mounts that are read-only, relative folders, checkpoints of old commits."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import save_tiny

from nanoserve.checkpoints import TWIN, checkpoint_path, download, staging, twin
from nanoserve.checkpoints.catalog import CATALOG, Checkpoint
from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.cli import main
from nanoserve.model import Llama

ROOT = Path(__file__).resolve().parent.parent
NAME = "llama-3.2-1b"


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOSERVE_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def small(monkeypatch):
    """A twin of one small file, so that what is made is not the point."""

    def write(folder, full):
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(twin, "write", write)
    pinned = {"config.json": hashlib.sha256(b"{}").hexdigest()}
    entry = Checkpoint(about="small", licence="none", size=2, room=2, pinned=pinned)
    monkeypatch.setitem(CATALOG, TWIN, entry)


@pytest.mark.parametrize("code", ["ENOSYS", "EOPNOTSUPP", "ENOLCK", "EINVAL"])
def test_a_disk_without_locks(code, weights, small, monkeypatch, capsys):
    def flock(file, operation):
        raise OSError(getattr(errno, code), "as such a disk says")

    monkeypatch.setattr(fcntl, "flock", flock)
    for _ in range(2):
        assert main(["download", TWIN]) == 0
        assert f"no lock can be had in {weights}" in capsys.readouterr().err
        shutil.rmtree(weights / TWIN)


def test_a_lock_that_a_broken_disk_refuses(weights, small, monkeypatch, capsys):
    def flock(file, operation):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert main(["download", TWIN]) == 1
    assert "cannot be used (Input/output error)" in capsys.readouterr().err


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_checkpoint_on_a_read_only_mount_is_taken(code, weights, monkeypatch, capsys):
    save_tiny(weights / NAME)

    def refuse(*args, **how):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(staging, "locked", refuse)  # the mount may begin above the checkpoint
    monkeypatch.setattr(download, "locked", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)
    assert main(["download", NAME]) == 0
    assert "is read-only" in capsys.readouterr().err


def test_a_file_beside_the_weights_that_cannot_be_read_is_named(weights, monkeypatch, capsys):
    save_tiny(weights / NAME)
    file = weights / NAME / "tokenizer.json"
    file.symlink_to("../blobs/gone")
    assert main(["download", NAME]) == 1
    assert "tokenizer.json is a link to nothing" in capsys.readouterr().err
    file.unlink()
    file.write_text("{}")
    plain = staging.sha256

    def sha256(path):
        if path == file:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return plain(path)

    monkeypatch.setattr(staging, "sha256", sha256)
    assert main(["download", NAME]) == 1
    err = capsys.readouterr().err
    assert f"{file} cannot be used (Permission denied)" in err and "read-only" not in err


def test_a_relative_folder_is_the_same_from_everywhere(tmp_path):
    code = (
        "from nanoserve.checkpoints import checkpoint_path, weights_dir\n"
        "print(weights_dir())\nprint(checkpoint_path())"
    )
    save_tiny(tmp_path / "mine")
    relative = os.path.relpath(tmp_path, ROOT)
    env = os.environ | {"PYTHONPATH": str(ROOT), "NANOSERVE_WEIGHTS": f"{relative}/w"}
    env["NANOSERVE_CHECKPOINT"] = f"{relative}/mine"
    for folder in (ROOT, ROOT / "book"):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = [Path(line).resolve() for line in done.stdout.splitlines()]
        assert found == [tmp_path / "w", tmp_path / "mine"]


def test_an_argument_is_relative_to_where_one_stands(tmp_path, monkeypatch, weights):
    save_tiny(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert checkpoint_path("mine") == tmp_path / "mine"
    monkeypatch.setenv("NANOSERVE_CHECKPOINT", "mine")
    with pytest.raises(CheckpointError, match="name another one in NANOSERVE_CHECKPOINT"):
        checkpoint_path()


def test_a_checkpoint_of_an_old_commit_serves(weights, capsys):
    """The stamp as it was written from the first commit on."""
    save_tiny(weights / NAME)
    files = {
        path.name: {
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted((weights / NAME).iterdir())
    }
    text = json.dumps({"files": files}, indent=2) + "\n"
    (weights / NAME / ".nanoserve.json").write_text(text)
    assert main(["download", NAME]) == 0  # no hub is asked
    assert main(["download", "--verify", NAME]) == 0
    assert "every file is as it should be" in capsys.readouterr().out
    assert (weights / NAME / ".nanoserve.json").read_text() == text
    staging.write_stamp(weights / NAME)
    assert (weights / NAME / ".nanoserve.json").read_text() == text
    assert Llama.from_pretrained(checkpoint_path(NAME))


POINTER = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 2471645608\n"
)


def beside_more(folder):
    (folder / ".cache" / "huggingface" / "download").mkdir(parents=True)
    (folder / "original").mkdir()
    (folder / "original" / "consolidated.00.pth").write_bytes(b"x")


def linked_into_the_cache(folder):
    snapshot = folder.parent / "hub" / "snapshots" / "abc"
    (folder.parent / "hub" / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder.parent / "hub" / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    folder.rmdir()
    folder.symlink_to(snapshot)


def interrupted(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.abc.incomplete").write_bytes(b"x" * 99)


def cloned_without_lfs(folder):
    (folder / "model.safetensors").write_text(POINTER)


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        (beside_more, 0, "is complete"),
        (linked_into_the_cache, 0, "is complete"),
        (interrupted, 1, "has no model.safetensors"),
        (cloned_without_lfs, 1, f"{len(POINTER)} bytes cannot have a header"),
    ],
)
def test_a_checkpoint_put_there_by_hand(how, status, said, weights, capsys):
    save_tiny(weights / NAME)
    how(weights / NAME)
    assert main(["download", NAME]) == status
    told = capsys.readouterr()
    assert said in told.out + told.err and ("move it away" in told.err) == (status == 1)
