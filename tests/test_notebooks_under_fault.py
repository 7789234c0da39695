"""The notebooks where something is amiss: each works, or says why in one sentence."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import nbformat
import pytest
import transformers
from jupyter_client import KernelManager
from readers import Reader
from tracked import tracked

from nanoserve.checkpoints import TWIN
from nanoserve.checkpoints.places import command

ROOT = Path(__file__).resolve().parent.parent
DAYS = [f"day{day:02}" for day in range(2, 8)]
# Root may write anywhere: without this power, a read-only file is read-only for root too.
POWERS = "-dac_override,-dac_read_search"
BOUND = ["setpriv", f"--bounding-set={POWERS}", f"--inh-caps={POWERS}"]
# The kernel can call this machine only, as when the network is down.
NO_NETWORK = """
import socket
connect = socket.socket.connect
def local(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost", "::1"):
        raise OSError(101, "Network is unreachable")
    return connect(self, address)
socket.socket.connect = local
"""


def code_cells(path: Path) -> list[str]:
    return [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


@pytest.fixture
def first_cells(tmp_path, monkeypatch):
    """Runs a notebook's first two cells in the book's folder; gives the error that they show."""
    monkeypatch.chdir(ROOT / "book")
    monkeypatch.delenv("NANOSERVE_CHECKPOINT", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(day):
        load, opening, *_ = code_cells(ROOT / "book" / f"{day}.ipynb")
        reader = Reader(tmp_path)
        assert "%load_ext live" in load and reader.run(load) is None
        return reader.run(opening), lambda: reader.run(opening)

    with matplotlib.rc_context():
        yield run


@pytest.mark.parametrize("day", DAYS)
def test_without_a_checkpoint_the_first_cell_gives_the_command(
    day, first_cells, monkeypatch, capsys
):
    monkeypatch.setenv("NANOSERVE_WEIGHTS", "/nowhere")
    error, _ = first_cells(day)
    assert type(error).__name__ == "CheckpointError"
    line = command("download", "smollm2-135m")
    assert str(error) == f"There is no checkpoint 'smollm2-135m' in /nowhere: run `{line}`."
    # Nothing but the message: the command is what the reader needs.
    assert capsys.readouterr().out.strip() == str(error)


@pytest.mark.parametrize("make", ["", "file", "folder", "pickle"])
def test_a_choice_that_is_none(make, first_cells, monkeypatch, tmp_path):
    choice = tmp_path / "choice ü"
    if make in ("folder", "pickle"):
        choice.mkdir()
    if make in ("file", "pickle"):
        (choice / "model.pth" if make == "pickle" else choice).write_text("x")
    monkeypatch.setenv("NANOSERVE_CHECKPOINT", str(choice))
    error, again = first_cells("day02")
    text = str(error)
    assert type(error).__name__ == "CheckpointError" and "\n" not in text
    assert "choice ü" in text and "in NANOSERVE_CHECKPOINT" in text
    wanted = {
        "": "neither",
        "file": "is a file",
        "folder": "no config.json",
        "pickle": "'model.pth'",
    }
    assert wanted[make] in text
    # The reader takes it back and runs the cell again.
    monkeypatch.delenv("NANOSERVE_CHECKPOINT")
    assert again() is None


def test_a_comparison_is_interrupted_and_run_again(first_cells, monkeypatch, tmp_path):
    monkeypatch.setenv("NANOSERVE_CHECKPOINT", TWIN)  # one is enough here
    reader, comparison = Reader(tmp_path), code_cells(ROOT / "book" / "day02.ipynb")[-1]

    def ctrl_c(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(transformers.LlamaForCausalLM, "forward", ctrl_c)
        error = reader.run(comparison)
    # Its traceback keeps HuggingFace's model in memory, as a kernel's last error does.
    assert isinstance(error, KeyboardInterrupt)
    assert reader.run(comparison) is None


def test_another_folder_is_named(tmp_path, monkeypatch):
    """The page tells what this message means."""
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--colors=NoColor", "-c", "%load_ext live"],
        capture_output=True,
        text=True,
    )
    assert "No module named 'live'" in done.stdout + done.stderr


@pytest.fixture
def checkout(tmp_path):
    """A copy of what is tracked, in which nothing may be written."""
    root = tmp_path / "check out ü"
    for name in tracked():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    paths = [root, *root.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield root
    for path in paths:
        path.chmod(0o755)


class Kernel:
    """A notebook's kernel, as Jupyter starts it: in the notebook's folder."""

    def __init__(self, folder: Path, env: dict[str, str], prefix: list[str]):
        self.manager = KernelManager(kernel_name="python3")
        self.manager.kernel_spec.argv[:1] = [*prefix, sys.executable]
        self.manager.start_kernel(cwd=str(folder), env=os.environ | env)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, source: str) -> dict:
        """Run a cell, and give the kernel's reply."""
        # After an error a kernel drops what comes at once: the next cell is sent at once.
        sent = self.client.execute(source, stop_on_error=False)
        while True:
            reply = self.client.get_shell_msg(timeout=100)
            if reply["parent_header"].get("msg_id") == sent:
                return reply["content"]

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def test_day_2_read_only_and_offline(checkout, tmp_path, monkeypatch):
    root = os.geteuid() == 0
    if root and subprocess.run([*BOUND, "true"], capture_output=True).returncode:
        pytest.skip("root can write in a read-only checkout, and there is no setpriv to stop it")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_NETWORK)
    monkeypatch.chdir(tmp_path)
    env = {"PYTHONPATH": str(tmp_path / "site"), "NANOSERVE_WEIGHTS": str(ROOT / "weights")}
    kernel = Kernel(checkout / "book", env, BOUND if root else [])
    try:
        for probe, name in (
            ("import socket; socket.create_connection(('192.0.2.1', 80), 1)", "OSError"),
            (f"open({str(checkout / 'nanoserve' / 'x')!r}, 'w')", "PermissionError"),
        ):
            assert kernel.run(probe)["ename"] == name  # the faults are there
        cells = code_cells(checkout / "book" / "day02.ipynb")
        modules = [i for i, cell in enumerate(cells) if cell.startswith("# nanoserve/config.py")]
        for source in cells[: modules[-1] + 1]:
            reply = kernel.run(source)
            assert reply["status"] == "ok", (source, reply)
        where = kernel.run(
            f"import nanoserve; assert nanoserve.__file__.startswith({json.dumps(str(checkout))})"
        )
        assert where["status"] == "ok"
    finally:
        kernel.close()
