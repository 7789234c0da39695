"""Downloads interrupted, doubled, damaged or denied a disk; and checkpoints put by hand."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from filelock import FileLock
from loopback import Hub

from nanoserve.checkpoints import TWIN, twin
from nanoserve.checkpoints import hub as our_hub
from nanoserve.checkpoints.download import DownloadError, download
from nanoserve.cli import main

NAME = "llama-3.2-1b"
SECONDS = 120  # for a machine that is busy
ROOT = Path(__file__).resolve().parent.parent
# As the command, with the client's chunk (10 MB, a constant) smaller than the test's file.
COMMAND = (
    "import sys; from huggingface_hub import constants; constants.DOWNLOAD_CHUNK_SIZE = 1 << 16;"
    "from nanoserve.cli import main; sys.exit(main())"
)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOSERVE_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The twin, made once."""
    folder = tmp_path_factory.mktemp("made") / TWIN
    folder.mkdir()
    twin.write(folder, full=False)
    return folder


@pytest.fixture
def hub(made):
    """A hub with a small checkpoint: two tensors that a header describes."""
    import torch
    from safetensors.torch import save

    weights = save({"model.norm.weight": torch.rand(500_000)}, metadata={"format": "pt"})
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": weights}
    hub = Hub(our_hub.REPO, files)
    yield hub
    hub.close()


def start(hub, weights):
    env = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    env |= {"HF_ENDPOINT": hub.address, "NANOSERVE_WEIGHTS": str(weights), "HF_TOKEN_PATH": "/none"}
    env |= {"HF_HUB_DOWNLOAD_TIMEOUT": str(SECONDS)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "download", NAME], env=env, cwd=ROOT, **pipes
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_leaves_a_part_and_resumes(hub, weights, how):
    hub.faults["model.safetensors"] = ["hold"]
    process = start(hub, weights)
    deadline = time.monotonic() + SECONDS
    while not list(weights.glob(f".{NAME}.part/.model.safetensors.*.part")) or not any(
        path.stat().st_size for path in weights.glob(f".{NAME}.part/.model*")
    ):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    out, err = process.communicate(timeout=SECONDS)
    assert out == "" and "Traceback" not in err
    if how == signal.SIGINT:
        assert process.returncode == 130 and "interrupted: " in err
    assert not (weights / NAME).exists()
    again = start(hub, weights)
    out, err = again.communicate(timeout=SECONDS)
    assert again.returncode == 0, err
    first, second = hub.ranges("model.safetensors")
    assert first is None and second.startswith("bytes=") and second != "bytes=0-"
    found = (weights / NAME / "model.safetensors").read_bytes()
    assert found == hub.files["model.safetensors"]


def test_two_downloads_at_once_fetch_once(hub, weights):
    weights.mkdir()
    with FileLock(weights / f".{NAME}.lock"):  # so that both come too early
        both = [start(hub, weights), start(hub, weights)]
        for process in both:
            assert "another download of llama-3.2-1b is running" in process.stderr.readline()
    errors = [process.communicate(timeout=SECONDS)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert len(hub.ranges("model.safetensors")) == len(hub.ranges("info")) == 1


def test_a_complete_twin_is_left_alone_and_a_damaged_one_replaced(made, weights, capsys):
    target = weights / TWIN
    shutil.copytree(made, target)
    (target / "notes.txt").write_text("mine")
    assert download(TWIN) == target  # put there by hand, found right, stamped
    assert download(TWIN) == target
    assert (target / "notes.txt").read_text() == "mine"
    file = target / "model.safetensors"
    before = file.stat().st_mtime_ns
    assert download(TWIN) == target and file.stat().st_mtime_ns == before
    with open(file, "r+b") as out:  # the same size, another bit
        out.seek(-1, os.SEEK_END)
        last = out.read(1)[0]
        out.seek(-1, os.SEEK_END)
        out.write(bytes([last ^ 1]))
    assert main(["download", "--verify", TWIN]) == 1
    err = capsys.readouterr().err
    assert "model.safetensors (247486672 bytes) has sha256" in err and "makes it anew" in err
    assert main(["download", "--list"]) == 0 and "damaged" in capsys.readouterr().out
    assert download(TWIN) == target
    assert file.read_bytes() == (made / "model.safetensors").read_bytes()
    assert main(["download", "--verify", TWIN]) == 0
    file.unlink()
    assert download(TWIN) == target and file.is_file()
    assert sorted(p.name for p in weights.iterdir()) == [f".{TWIN}.lock", TWIN]


def test_a_foreign_folder_is_not_touched(weights, capsys):
    (weights / TWIN).mkdir(parents=True)
    (weights / TWIN / "config.json").write_text("mine")
    assert main(["download", TWIN]) == 1
    assert "not made by this command: move it away" in capsys.readouterr().err
    assert [path.name for path in (weights / TWIN).iterdir()] == ["config.json"]
    assert (weights / TWIN / "config.json").read_text() == "mine"


def test_a_folder_from_the_hub_put_by_hand_is_judged_by_its_headers(made, weights, capsys):
    target = weights / NAME
    shutil.copytree(made, target)
    assert main(["download", "--verify", NAME]) == 0
    assert "the headers are sound" in capsys.readouterr().out
    file = target / "model.safetensors"
    os.truncate(file, file.stat().st_size - 2)
    assert main(["download", "--verify", NAME]) == 1
    err = capsys.readouterr().err
    assert "model.safetensors" in err and "move it away" in err and "anew" not in err
    assert main(["download", NAME]) == 1  # and no hub is asked: HF_ENDPOINT is not set here
    assert "is not complete" in capsys.readouterr().err


def test_a_link_to_a_checkpoint_elsewhere(made, weights, tmp_path):
    weights.mkdir()
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(made, elsewhere)
    (weights / TWIN).symlink_to(elsewhere)
    assert download(TWIN) == weights / TWIN
    (elsewhere / "config.json").unlink()
    assert download(TWIN) == weights / TWIN
    assert not (weights / TWIN).is_symlink() and elsewhere.is_dir()


def test_the_disk_is_looked_at_first(weights, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(twin, "write", lambda *a, **k: pytest.fail("began to write"))
    assert main(["download", TWIN]) == 1
    assert "250.0 MB are needed" in capsys.readouterr().err
    assert [path.name for path in weights.iterdir()] == [f".{TWIN}.lock"]


def test_a_folder_that_cannot_be_used(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NANOSERVE_WEIGHTS", str(tmp_path / "file"))
    assert main(["download", TWIN]) == 1
    assert "cannot be used" in capsys.readouterr().err


def test_names(weights, capsys):
    for arguments in (["nonsense"], ["../x"], ["smollm2-135m", "--full"]):
        assert main(["download", *arguments]) == 1
        assert "the names are smollm2-135m, " in capsys.readouterr().err
    assert main(["download", "--verify"]) == 1
    assert "smollm2-135m is not in" in capsys.readouterr().err
    with pytest.raises(DownloadError):
        download("nonsense")
