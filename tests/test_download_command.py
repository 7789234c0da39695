"""The download as a reader sees it: one who interrupts it, pipes it, or may not write."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanoserve.checkpoints import DEFAULT, TWIN

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def weights(tmp_path):
    return tmp_path / "w ü ñ 日本"


def start(weights, *arguments, **env):
    """The command, in a process group of its own, as a shell starts it."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHONIO"))}
    env = keep | {"NANOSERVE_WEIGHTS": str(weights), "PIP_CONFIG_FILE": os.devnull} | env
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "nanoserve", "download", *arguments]
    return subprocess.Popen(command, env=env, cwd=ROOT, start_new_session=True, **pipes)


def press_ctrl_c(process, weights):
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and out == ""
    assert "interrupted: nothing half made" in err and "Traceback" not in err
    assert [path.suffix for path in weights.iterdir()] == [".lock"]


def test_ctrl_c_while_the_twin_is_written_and_once_more(weights):
    process = start(weights, TWIN)
    file = weights / f".{TWIN}.part" / "model.safetensors"
    while not file.exists() or file.stat().st_size < 1 << 20:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    press_ctrl_c(process, weights)
    again = start(weights, TWIN, PYTHONIOENCODING="ascii")  # a terminal without such letters
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0 and "is complete" in out and "\\u65e5" in out, err
    assert (weights / TWIN / "model.safetensors").is_file()


def test_ctrl_c_while_pip_fetches(weights):
    with socket.create_server(("127.0.0.1", 0)) as index:  # that takes a call and is silent
        index.settimeout(120)
        url = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        process = start(weights, DEFAULT, PIP_INDEX_URL=url)
        with index.accept()[0]:
            press_ctrl_c(process, weights)


def test_a_pipe_that_is_closed(weights):
    process = start(weights, "--list", PYTHONUNBUFFERED="1")
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(120) == 1 and err == ""


def test_a_folder_that_may_not_be_written(weights, capsys):
    from nanoserve.cli import main

    root = os.geteuid() == 0
    weights = Path("/proc") if root else weights  # where even root may make no file
    if not root:
        weights.mkdir()
        weights.chmod(0o555)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOSERVE_WEIGHTS", str(weights))
        assert main(["download", TWIN]) == 1
        assert "cannot be used (" in (err := capsys.readouterr().err)
        assert str(weights) in err and "NANOSERVE_WEIGHTS can name another folder" in err
        assert main(["download", "--list"]) == 0
        assert main(["download", "--verify", TWIN]) == 1
        assert "is not in" in capsys.readouterr().err
