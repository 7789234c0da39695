"""What readers have set in their environment reaches no build, no test and no page."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import environment
import nbformat
import pytest
import tangle
from cells import CellError
from readers import write_book
from tracked import ROOT, tracked

BOOK = ROOT / "book"
HOSTILE = {
    "MPLBACKEND": "Agg",
    "DISPLAY": ":0",
    "HF_HUB_ENABLE_HF_TRANSFER": "1",
    "HF_HUB_DOWNLOAD_TIMEOUT": "30s",
    "TRANSFORMERS_CACHE": "cache",
    "PYTHONOPTIMIZE": "1",
    "PYTHONSAFEPATH": "1",
    "PYTHONWARNINGS": "always",
    "HOME": "/proc/none",
    "FORCE_COLOR": "1",
    "JUPYTER_PATH": "/proc/none",
}
# Of these a kernel that was started by others has been told before the first cell runs.
EARLY = ("HOME", "PYTHONOPTIMIZE", "JUPYTER_PATH")
CELLS = [
    next(c for c in nbformat.read(BOOK / "day04.ipynb", 4).cells if c.cell_type == "code").source,
    "import matplotlib.pyplot as plt\nplt.style.use('nanoserve.mplstyle')\n"
    "from nanoserve.reference import Reference",
    "plt.plot([1, 2])\nplt.show()",
    "try:\n    assert False\n    print('asserts are off')\nexcept AssertionError:\n    pass",
]
RUN_CELLS = textwrap.dedent("""
    import json, sys, nbformat
    from nbclient import NotebookClient
    cells = [nbformat.v4.new_code_cell(source) for source in json.loads(sys.argv[1])]
    notebook = nbformat.v4.new_notebook(cells=cells)
    where = {"metadata": {"path": sys.argv[2]}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()
    for cell in notebook.cells:
        for output in cell.outputs:
            pictures = [kind for kind in output.get("data", {}) if kind.startswith("image/")]
            print(output.output_type, output.get("name", ""), pictures, output.get("text", ""))
""")
A_FIGURE = "display_data  ['image/png']"


@pytest.mark.parametrize("settled_by", ["make", "the first cell"])
def test_a_page_has_its_figures_and_no_warning(settled_by, tmp_path):
    """As make runs it, and as a reader's own Jupyter does, which knows nothing of make."""
    hostile = {k: v for k, v in HOSTILE.items() if settled_by == "make" or k not in EARLY}
    run = [sys.executable, "-E", str(BOOK / "environment.py")]
    command = [*(run if settled_by == "make" else [sys.executable]), "-c", RUN_CELLS]
    clean = {k: v for k, v in os.environ.items() if k not in environment.SETTINGS}
    done = subprocess.run(
        [*command, json.dumps(CELLS), str(BOOK)],
        env=clean | hostile,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    shown = [line for line in done.stdout.splitlines() if line.strip()]
    assert [line.strip() for line in shown] == [A_FIGURE], done.stdout


def test_what_is_kept_and_what_is_not(tmp_path):
    mine = {"NANOSERVE_WEIGHTS": "w", "OMP_NUM_THREADS": "1", "HTTPS_PROXY": "p", "PATH": "x"}
    mine |= {"PIP_INDEX_URL": "u", "SSL_CERT_FILE": "c", "PYTEST_ADDOPTS": "-q"}
    assert environment.settled(mine | HOSTILE | {"PIP_USER": "1"}).items() >= mine.items()
    assert environment.settled(HOSTILE | {"PIP_USER": "1"}).items() >= environment.SETTINGS.items()
    assert not {"PYTHONSAFEPATH", "FORCE_COLOR"} & environment.settled(HOSTILE).keys()


def make(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    """make with the book's Makefile in a folder of its own."""
    (folder / "book").mkdir(exist_ok=True)
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copy(BOOK / "environment.py", folder / "book")
    for name in ("requirements.txt", "pyproject.toml"):
        if not (folder / name).exists():
            (folder / name).touch()
    command = ["make", f"PYTHON={sys.executable}", *arguments]
    outside = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(command, cwd=folder, env=outside | env, capture_output=True, text=True)


def test_pip_installs_into_the_books_own_environment(tmp_path):
    (tmp_path / "requirements.txt").write_text("pip\n")  # there already: nothing is fetched
    env = {"PIP_USER": "1", "PIP_TARGET": str(tmp_path / "elsewhere"), "PIP_NO_INDEX": "1"}
    done = make(tmp_path, "-n", ".venv/.installed")
    needy = "-e .", "ipykernel"  # setuptools, and what requirements.txt would have brought
    steps = [line for line in done.stdout.splitlines() if not any(n in line for n in needy)]
    done = subprocess.run(
        ["sh", "-ec", "\n".join(steps)],
        cwd=tmp_path,
        env=os.environ | env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "already satisfied" in done.stdout and not (tmp_path / "elsewhere").exists()
    assert (tmp_path / ".venv/.installed").read_text() == f"{tmp_path.resolve()}\n"


def test_a_python_that_the_pins_refuse_is_refused_first(tmp_path):
    old = tmp_path / "python3.10"
    old.write_text(
        f"#!/bin/sh\nshift\nexec {sys.executable} -c 'import runpy, sys; sys.version_info = "
        'sys.version_info[:0] + (3, 10, 4); runpy.run_path(sys.argv[1], run_name="__main__")\' "$@"'
    )
    old.chmod(0o755)
    done = make(tmp_path, "setup", f"PYTHON={old}")
    assert done.returncode != 0 and not (tmp_path / ".venv").exists()
    assert "need Python 3.11 or newer" in done.stderr and "is 3.10" in done.stderr
    assert "make PYTHON=python3.11" in done.stderr


def test_pip_alone_refuses_such_a_python_before_the_half_gigabyte():
    pins = [line.split("==")[0] for line in (ROOT / "requirements.txt").read_text().splitlines()]
    assert pins.index("numpy") < pins.index("torch")  # numpy's newest wants 3.11, torch's does not


@pytest.mark.parametrize("moved", [False, True])
def test_a_folder_that_was_moved_is_set_up_anew(moved, tmp_path):
    venv = tmp_path / "old" / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to(sys.executable)
    folder = (tmp_path / "old").resolve()
    make(folder, "-n", "book")  # so that the files are there
    (venv / ".installed").write_text(f"{folder}\n")
    if moved:
        folder = folder.rename(tmp_path / "new place")
    done = make(folder, "-n", "book")
    assert ("-m venv --clear .venv" in done.stdout) == moved
    assert ("-m pip install" in done.stdout) == moved


def test_nothing_runs_through_a_script_that_names_a_folder(tmp_path):
    for target in ("book", "lab", "test", "site", "practice", "bench", "refresh", "pdf"):
        lines = make(tmp_path, "-n", target).stdout
        assert ".venv/bin/python" in lines
        assert lines.count(".venv/bin/") == lines.count(".venv/bin/python")


def test_a_zip_without_git(tmp_path):
    """What needs git skips, and every other test can be collected."""
    names = [name for name in tracked() if not name.startswith("weights/")]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    env = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    code = "import tracked; print(tracked.is_repository(), *tracked.tracked(), sep='\\0', end='')"
    command = [sys.executable, "-c", code]
    pipes = {"env": env, "capture_output": True, "text": True}
    done = subprocess.run(command, cwd=tmp_path / "tests", **pipes)
    assert done.stdout.split("\0") == ["False", *sorted(names)]
    files = ["test_book.py", "test_how_fast.py", "test_opened_alone.py", "test_environment.py"]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    command += [f"tests/{name}" for name in files]
    done = subprocess.run(command, cwd=tmp_path, **pipes)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("broken", [b'{"cells": [', b"<<<<<<< HEAD\n", b"\xff\xfe", b"[]", b"{}"])
def test_a_notebook_that_cannot_be_read_is_named_and_stops_no_other_day(broken, tmp_path):
    book = write_book(tmp_path / "book", day02=["# nanoserve/one.py\nA = 1"])
    (book / "day03.ipynb").write_bytes(broken)
    with pytest.raises(CellError, match=r"day03\.ipynb cannot be read as a notebook"):
        list(tangle.module_cells(book))
    with pytest.warns(UserWarning, match=r"day03\.ipynb cannot be read"):
        assert [cell.module for cell in tangle.module_cells(book, strict=False)] == ["one"]
