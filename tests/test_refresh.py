"""What book/refresh.py stores, and what it refuses to store."""

import nbformat
import pytest
import refresh
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output


@pytest.fixture
def stored(tmp_path):
    def store(*sources: str):
        cells = [new_markdown_cell("# Day 9"), *map(new_code_cell, sources)]
        for i, cell in enumerate(cells):
            cell.id = f"cell-{i}"
        cells[1].metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
        notebook = new_notebook(
            cells=cells, metadata={"language_info": {"name": "python", "version": "3.1"}}
        )
        nbformat.write(notebook, tmp_path / "day09.ipynb")
        return tmp_path / "day09.ipynb"

    return store


def test_outputs_are_clean_and_stable(stored):
    path = stored("import sys\nprint(1)\nsys.stdout.flush()\nprint(2)\n3", "%load_ext live")
    assert refresh.main([str(path)]) == 0
    first = path.read_bytes()
    notebook = nbformat.reads(first.decode(), as_version=4)
    markdown, code, extension = notebook.cells
    assert [cell.id for cell in notebook.cells] == ["cell-0", "cell-1", "cell-2"]
    assert [code.execution_count, extension.execution_count] == [1, 2]
    assert [o.get("text") for o in code.outputs] == ["1\n2\n", None]
    assert code.metadata == markdown.metadata == {}
    assert notebook.metadata == refresh.METADATA
    assert refresh.main([str(path)]) == 0
    assert path.read_bytes() == first
    assert list(path.parent.iterdir()) == [path]


def test_cell_that_does_nothing_is_counted_and_cleared(stored):
    path = stored("1", "", "3")
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells[1:]:
        cell.outputs = [new_output("stream", text="old")]
    nbformat.write(notebook, path)
    assert refresh.main([str(path)]) == 0
    cells = nbformat.read(path, as_version=4).cells[1:]
    assert [cell.execution_count for cell in cells] == [1, 2, 3]
    assert [[o.execution_count for o in cell.outputs] for cell in cells] == [[1], [], [3]]


def test_measured_times_are_kept_until_cleared(stored):
    path = stored("import time\ntime.perf_counter_ns()")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].metadata["tags"] = ["nbval-ignore-output"]
    nbformat.write(notebook, path)
    assert refresh.main([str(path)]) == 0
    first = path.read_bytes()
    assert refresh.main([str(path)]) == 0
    assert path.read_bytes() == first
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs = []
    nbformat.write(notebook, path)
    assert refresh.main([str(path)]) == 0
    assert path.read_bytes() != first


@pytest.mark.parametrize(
    "source, message",
    [
        ("1 / 0", "day09.ipynb: cell 2: ZeroDivisionError: division by zero"),
        ("import sys\nprint('oh', file=sys.stderr)", "day09.ipynb: cell 2 wrote to stderr: oh"),
    ],
)
def test_what_goes_wrong_is_named_and_not_stored(stored, capsys, source, message):
    path = stored("1", source, "2")
    before = path.read_bytes()
    assert refresh.main([str(path)]) == 1
    assert capsys.readouterr().out == message + "\n"
    assert path.read_bytes() == before


def test_cell_that_does_not_end_is_named(stored):
    path = stored("1", "import time\ntime.sleep(60)")
    assert "timed out" in refresh.refresh(path, timeout=1)[0]
