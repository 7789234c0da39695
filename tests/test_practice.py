"""The practice notebooks as they are written: what is left out, what helps, nothing overwritten."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from cells import HEADER
from pieces import body_of, functions, hints, is_given, left, to_write
from practice import UNCHECKED, main, practised, without_asserts

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
DAYS = sorted(path.stem for path in BOOK.glob("day[0-9][0-9].ipynb"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("work") / "practice"
    assert main(target) == 0
    return target


def cells(folder: Path, day: str) -> list:
    return nbformat.read(folder / f"{day}.ipynb", as_version=4).cells


def open_text(folder: Path, day: str) -> str:
    """All of a practice notebook but what opens on a click."""
    return re.sub(r"<details>.*?</details>", "", all_text(folder, day), flags=re.DOTALL)


def all_text(folder: Path, day: str) -> str:
    return "\n".join(cell.source for cell in cells(folder, day))


@pytest.mark.parametrize("day", DAYS)
def test_every_function_to_write_is_blank_and_has_hints(folder, day):
    wanted = [name for piece in to_write(day).values() for name in piece.functions]
    text = open_text(folder, day)
    assert wanted and text.count(f'("Day {int(day[3:])}: ') == len(wanted)
    assert [name for name in wanted if f'Error("{left(name, day)}")' not in text] == []
    folds = "\n".join(cell.source for cell in cells(folder, day) if "<summary>Hints" in cell.source)
    for key, piece in to_write(day).items():
        for name in piece.functions:
            steps = hints()[key.rpartition(".")[0]][name]
            assert 1 <= len(steps) <= 3, name
            assert f"`{name}`\n\n1. {steps[0]}" in folds


def test_hints_are_of_functions_that_there_are():
    known = {
        (key.rpartition(".")[0], name)
        for day in DAYS
        for key, piece in to_write(day).items()
        for name, _ in functions(ast.parse(piece.text))
    }
    assert {(module, name) for module, names in hints().items() for name in names} <= known


@pytest.mark.parametrize("day", DAYS)
def test_no_answer_is_left_in_sight(folder, day):
    text = open_text(folder, day)
    for cell in nbformat.read(ROOT / "book" / f"{day}.ipynb", as_version=4).cells:
        header = HEADER.match(cell.source + "\n")
        if "remove-cell" in cell.metadata.get("tags", []) and "%load_ext" not in cell.source:
            for node in ast.walk(ast.parse(cell.source)):
                assert not isinstance(node, ast.Assert) or ast.unparse(node) not in text
        elif header and header[1] != "reference" and "given" not in cell.metadata.get("tags", []):
            for name, function in functions(ast.parse(cell.source)):
                lines = cell.source.split("\n")[function.lineno : function.end_lineno]
                body = body_of(function)
                if body and not is_given(header[1], name):
                    body = "\n".join(lines[body[0].lineno - function.lineno - 1 :])
                    assert body not in text, name
    assert all(not cell.get("outputs") for cell in cells(folder, day))


def test_checks_of_the_pages_numbers_are_left_out():
    code = (
        "a = 1\nassert a == 1\nfor b in (1, 2):\n    assert b\n    assert a\nwith c:\n    d = 2\n"
    )
    code += "    assert d == 2\nassert (\n    d\n), 'why'\n\nif a:\n    pass\nelse:\n    assert a"
    assert (
        without_asserts(code) == "a = 1\nwith c:\n    d = 2\n\nif a:\n    pass\nelse:\n    assert a"
    )
    assert without_asserts("assert truth == 'ACD'") == ""
    assert without_asserts("torch.testing.assert_close(a, b)\nm.assertion()") == "m.assertion()"
    assert without_asserts("# What the page says, checked.\nassert a == 1") == ""
    cell = nbformat.v4.new_code_cell("assert 1 == 1", metadata={"tags": ["remove-cell"]})
    assert practised(cell, "day05") == []
    cell.source = "# The page checks its text.\nassert a == 1\nb = 2"
    kept = [f"{UNCHECKED}\nb = 2"]
    for later, wanted in (("c = b", kept), ("b = 3\nc = b", []), ("c = 2", [])):
        found = practised(nbformat.from_dict(dict(cell)), "day05", ["", later])
        assert [c.source for c in found] == wanted, later
    cell.source = "# The page checks its text.\nassert a == 1\na.clean()"
    assert [c.source for c in practised(cell, "day05")] == [f"{UNCHECKED}\na.clean()"]


@pytest.mark.parametrize("day", DAYS)
def test_no_solution_of_an_exercise_is_left_in_sight(folder, day):
    told = re.findall(r"<summary>Solution</summary>.*?</details>", all_text(folder, day), re.DOTALL)
    solved = re.findall(r"^(def .*?)^```", "\n".join(told), re.DOTALL | re.MULTILINE)
    endings = {ast.unparse(ast.parse(text).body[0].body[-1]) for text in solved}
    code = [c.source for c in cells(folder, day) if c.cell_type == "code"]
    trees = [ast.parse(re.sub(r"^%", "# %", source, flags=re.MULTILINE)) for source in code]
    functions = [n for t in trees for n in ast.walk(t) if isinstance(n, ast.FunctionDef)]
    for function in functions:
        assert function.name not in ("solution", "solved")
        assert ast.unparse(function.body[-1]) not in endings, function.name


def test_what_is_given_stays_whole():
    source = "# nanoserve/layers.py\ndef scale(x):\n    return 2 * x"
    given = nbformat.v4.new_code_cell(source, metadata={"tags": ["given"]})
    assert [cell.source for cell in practised(given, "day05")] == [source]
    given.metadata.tags = []
    blank, *folds = practised(given, "day05")
    assert "Day 5: scale is yours to write" in blank.source and len(folds) == 2
    linear = source.replace("def scale", "class Linear:\n    def __init__")
    linear = linear.replace("    return 2 * x", "        self.x = x")
    assert [c.source for c in practised(nbformat.v4.new_code_cell(linear), "day05")] == [linear]


@pytest.mark.parametrize("day", DAYS)
def test_it_begins_with_how_it_works_and_its_links_lead_somewhere(folder, day):
    how, setup, *rest = cells(folder, day)
    assert "To begin anew" in how.source and f"practice/mine/{day}.json" in how.source
    assert f'begin("{day}")' in setup.source and "source_hidden" not in str(setup.metadata)
    assert sum("%load_ext" in cell.source for cell in rest) == 0
    text = "\n".join(cell.source for cell in rest if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)\s#]+)", text) + re.findall(r'(?:src|href)="([^"#]+)', text)
    links = [link for link in links if "://" not in link]
    assert links and [link for link in links if not (folder / link).exists()] == []
    for file, anchor in re.findall(r"\]\(([\w-]+\.md)?#((?:[^()]|\([^)]*\))*)\)", text):
        target = (folder / file).read_text("utf-8") if file else text
        headings = re.findall(r"^#+ (.+)$", target, re.MULTILINE)
        assert anchor in [heading.replace(" ", "-") for heading in headings], "JupyterLab's name"
    used = re.findall(r'"((?:_static|figures)/[^"]+|[\w-]+\.mplstyle)"', str(rest))
    used += [name for name in re.findall(r"[\w-]+\.json", str(rest)) if (BOOK / name).exists()]
    assert [name for name in used if not (folder / name).exists()] == []


def test_a_readers_work_is_never_overwritten(folder):
    file = folder / "day04.ipynb"
    notebook = nbformat.read(file, as_version=4)
    notebook.cells[0].source += "\n\nmy own notes"
    nbformat.write(notebook, file)
    written = file.read_bytes()
    (folder / "glossary.md").write_text("old")
    assert main(folder) == 0
    assert file.read_bytes() == written
    assert (folder / "glossary.md").read_text("utf-8") != "old"  # the book's: kept up to date


def test_the_command_that_it_prints_runs_as_printed(tmp_path, monkeypatch, capsys):
    target = tmp_path / "my practice"
    monkeypatch.chdir(tmp_path)
    assert main(target) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("Open them with: "))
    assert command[2:] == ["my practice"]
    # The longest that ends by itself: the folder is taken, and the program starts.
    assert subprocess.run([*command, "--version"], capture_output=True).returncode == 0


def test_the_books_own_package_is_untouched(folder):
    command = [sys.executable, "book/tangle.py", "--check"]
    assert subprocess.run(command, cwd=ROOT).returncode == 0
