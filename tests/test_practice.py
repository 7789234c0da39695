"""The practice notebooks: blank ones fail kindly, filled ones pass, nothing is overwritten."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from cells import HEADER
from practice import body_of, functions, main

ROOT = Path(__file__).resolve().parent.parent
DAYS = [f"day{day:02}" for day in range(2, 8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("work") / "practice"
    assert main(target) == 0
    return target


def main_cells(notebook) -> list[str]:
    """A practice notebook's set-up, module cells, comparison and progress."""
    return [
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "code"
        and (
            HEADER.match(cell.source + "\n")
            or "load_ext live" in cell.source
            or "progress(" in cell.source
            or "comparison" in cell.metadata.get("tags", [])
        )
    ]


def run(folder: Path, wanted: list[str]) -> str:
    """Run cells in a shell of their own, up to the first that fails; what they printed."""
    code = (
        "import sys; from IPython.core.interactiveshell import InteractiveShell as S\n"
        "shell = S.instance()\n"
        f"for source in {wanted!r}:\n"
        "    result = shell.run_cell(source, store_history=True)\n"
        "    error = result.error_in_exec or result.error_before_exec\n"
        "    if error: sys.exit(str(error))\n"
    )
    environment = {
        **os.environ,
        "NANOSERVE_WEIGHTS": str(ROOT / "weights"),
        "PYTHONPATH": str(ROOT / "book"),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    return done.stdout + done.stderr


def with_answers(blank, day: str):
    """The blank notebook with the book's own cells put back."""
    book = [
        cell.source
        for cell in nbformat.read(ROOT / "book" / f"{day}.ipynb", as_version=4).cells
        if cell.cell_type == "code" and HEADER.match(cell.source + "\n")
    ]
    cells = [c for c in blank.cells if c.cell_type == "code" and HEADER.match(c.source + "\n")]
    for cell, source in zip(cells, book, strict=True):
        cell.source = source
    return blank


@pytest.mark.parametrize("day", ["day05"])
def test_blank_fails_kindly_and_filled_passes(folder, day):
    blank = nbformat.read(folder / f"{day}.ipynb", as_version=4)
    before = run(folder, main_cells(blank))
    assert f"Day {int(day[3:])}: " in before and "is yours to write" in before
    after = run(folder, main_cells(with_answers(blank, day)))
    assert "match HuggingFace within 1e-5" in after, after[-3000:]
    assert "to write" not in after


@pytest.mark.parametrize("day", ["day05", "day06"])
def test_a_day_begun_anew_runs_up_to_the_readers_own_piece(folder, day):
    cells = nbformat.read(folder / f"{day}.ipynb", as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    first = next(i for i, source in enumerate(code) if HEADER.match(source + "\n"))
    half = re.sub("raise NotImplementedError.*", "return None", code[first])
    assert "return None" in half
    written = run(folder, [code[0], half, code[-1]])
    assert "done" in written, written
    again = run(folder, [*code[:first], code[-1]])
    assert "to write" in again and "done" not in again, again[-3000:]


def test_the_books_own_package_is_untouched(folder):
    command = [sys.executable, "book/tangle.py", "--check"]
    assert subprocess.run(command, cwd=ROOT).returncode == 0


def test_a_readers_work_is_never_overwritten(folder):
    file = folder / "day04.ipynb"
    notebook = nbformat.read(file, as_version=4)
    notebook.cells[0].source += "\n\nmy own notes"
    nbformat.write(notebook, file)
    written = file.read_bytes()
    assert main(folder) == 0
    assert file.read_bytes() == written


@pytest.mark.parametrize("day", DAYS)
def test_no_answer_is_left_in_sight(folder, day):
    notebook = nbformat.read(folder / f"{day}.ipynb", as_version=4)
    sources = [c.source for c in notebook.cells if HEADER.match(c.source + "\n")]
    book = nbformat.read(ROOT / "book" / f"{day}.ipynb", as_version=4)
    answers = [
        name
        for cell in book.cells
        if (header := HEADER.match(cell.source + "\n")) and header[1] != "reference"
        for name, function in functions(ast.parse(cell.source))
        if body_of(function)
    ]
    assert sum(source.count("is yours to write") for source in sources) == len(answers) > 0
    assert any("<summary>Hint" in c.source for c in notebook.cells)
