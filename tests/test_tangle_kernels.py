"""%load_ext live in processes of their own: two kernels at once, and a notebook that is run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import tangle
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from readers import write_book

TESTS = Path(__file__).parent
SCALE = "# nanoserve/pieces.py\ndef scale(x):\n    return 3 * x"


@pytest.fixture
def book(tmp_path, package):
    return write_book(tmp_path / "book")


def test_two_kernels_at_once(book, tmp_path):
    def kernel(prefix: str) -> subprocess.Popen:
        sources = [
            f"# nanoserve/shared.py\n{prefix}{i} = {i}  # {prefix}\nLATEST_{prefix} = {i}"
            for i in range(4)
        ]
        command = [sys.executable, TESTS / "readers.py", book, tmp_path / "start"]
        return subprocess.Popen(
            [*command, json.dumps(sources)],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(tangle.BOOK)},
        )

    kernels = [kernel("A"), kernel("B")]
    for process in kernels:
        assert process.stdout.readline() == b"ready\n"
    (tmp_path / "start").touch()
    assert [process.wait(60) for process in kernels] == [0, 0]
    text = (tangle.package() / "shared.py").read_text("utf-8")
    for name in [f"{prefix}{i} = {i}" for prefix in "AB" for i in range(4)]:
        assert text.count(name) == 1
    assert text.count("LATEST") == 2
    assert not list(tangle.package().glob("*.tmp"))


def test_notebook_run_fails_where_a_cell_cannot_be_placed(book):
    bad = "# nanoserve/pieces.py\nprint(1)"
    check = "from nanoserve.pieces import scale\nassert scale(1) == 3"
    cells = map(nbformat.v4.new_code_cell, ["%load_ext live", SCALE, check, bad])
    notebook = nbformat.v4.new_notebook(cells=list(cells))
    client = NotebookClient(notebook, resources={"metadata": {"path": str(tangle.BOOK)}})
    with pytest.raises(CellExecutionError, match="only imports, definitions and constants"):
        client.execute()
    assert [cell.execution_count for cell in notebook.cells[:3]] == [1, 2, 3]
