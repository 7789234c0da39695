"""Writes practice/dayNN.ipynb, the chapters with the answers taken out: make practice.

    python book/practice.py

Each has the signatures and docstrings of its module cells and none of the bodies, a folded hint
under each, and the comparison that judges what the reader writes. They work on a package of their
own, practice/nanoserve, so the book's stays as it is. What is there already is never overwritten.
"""

import ast
import shutil
import sys
from pathlib import Path

import nbformat
from cells import HEADER
from nbformat.v4 import new_code_cell, new_markdown_cell

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
SETUP = """\
import os
import sys
from pathlib import Path

os.environ["NANOSERVE_PACKAGE"] = str(Path.cwd() / "nanoserve")
os.environ.setdefault("NANOSERVE_WEIGHTS", str(Path.cwd().parent / "weights"))
sys.path[:0] = [str(Path.cwd()), str(Path.cwd().parent / "book")]
%load_ext tangle"""
PROGRESS = """\
from practice import progress

progress("{day}")"""
TODO = "is yours to write"


def functions(tree: ast.Module) -> list[tuple[str, ast.FunctionDef]]:
    """Every function and method of a cell, by its qualified name."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found.append((node.name, node))
        elif isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
            found += [(f"{node.name}.{method.name}", method) for method in methods]
    return found


def body_of(function: ast.FunctionDef) -> list[ast.stmt]:
    """A function's statements after its docstring."""
    has_doc = ast.get_docstring(function) is not None
    return function.body[1:] if has_doc else function.body


def blank(source: str, day: str) -> tuple[str, list[str]]:
    """A module cell without its bodies, and a hint for each body taken out."""
    lines, hints = source.split("\n"), []
    for name, function in reversed(functions(ast.parse(source))):
        body = body_of(function)
        if not body:
            continue
        start, end = body[0].lineno - 1, body[-1].end_lineno
        indent = " " * body[0].col_offset
        number = int(day[3:])
        stub = f'raise NotImplementedError("Day {number}: {name} {TODO}")'
        lines[start:end] = [indent + stub]
        calls = [n.func for n in ast.walk(function) if isinstance(n, ast.Call)]
        used = dict.fromkeys(ast.unparse(call).split(".")[-1] for call in calls)
        hints.append(
            f"`{name}`: the book takes {end - start} line{'s' * (end - start > 1)}"
            + (f" and calls {', '.join(f'`{u}`' for u in used)}." if used else ".")
        )
    return "\n".join(lines), hints[::-1]


def practice(path: Path) -> nbformat.NotebookNode:
    """A chapter with the bodies of its module cells taken out."""
    notebook = nbformat.read(path, as_version=4)
    day, cells = path.stem, []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if cell.source.endswith("%load_ext tangle"):
                cell.source = SETUP
            header = HEADER.match(cell.source + "\n")
            # The harness stays whole: it is the judge.
            if header and header[1] != "reference":
                original = cell.source
                cell.metadata.pop("jupyter", None)  # it is to be written
                cell.source, hints = blank(original, day)
                cells.append(cell)
                if hints:
                    cells.append(
                        new_markdown_cell(fold("Hint", "\n".join(f"- {h}" for h in hints)))
                    )
                    code = f"```python\n{original}\n```"
                    cells.append(new_markdown_cell(fold("The book's own", code)))
                continue
        cells.append(cell)
    cells.append(new_code_cell(PROGRESS.format(day=day)))
    for number, cell in enumerate(cells):
        cell.id = f"{day}-practice-{number:03}"
    notebook.cells = cells
    return notebook


def fold(summary: str, text: str) -> str:
    """Markdown that opens on a click."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def progress(day: str, folder: Path | None = None) -> None:
    """Print which functions of a day are written and which are not."""
    package = (folder or Path.cwd()) / "nanoserve"
    number = int(day[3:])
    names = [
        name
        for cell in nbformat.read(BOOK / f"{day}.ipynb", as_version=4).cells
        if cell.cell_type == "code" and (header := HEADER.match(cell.source + "\n"))
        if header[1] != "reference"
        for name, function in functions(ast.parse(cell.source))
        if body_of(function)
    ]
    text = "\n".join(p.read_text("utf-8") for p in sorted(package.glob("*.py")))
    left = [name for name in names if f"Day {number}: {name} {TODO}" in text]
    for name in names:
        print("to write" if name in left else "done    ", name)
    print(f"{len(names) - len(left)} of {len(names)}")


def main(target: Path = ROOT / "practice") -> int:
    """Write what is not there yet; returns the exit status."""
    target.mkdir(exist_ok=True)
    if not (target / "nanoserve").exists():
        shutil.copytree(
            ROOT / "nanoserve",
            target / "nanoserve",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    for name in ("_static", "figures", "nanoserve.mplstyle"):
        if not (target / name).exists():
            copy = shutil.copytree if (BOOK / name).is_dir() else shutil.copy
            copy(BOOK / name, target / name)
    for path in sorted(BOOK.glob("day*.ipynb")):
        new = target / path.name
        if new.exists():
            print(f"{new.name}: there already, left as it is")
            continue
        nbformat.write(practice(path), new)
        print(f"{new.name}: written")
    print(f"Open them with: jupyter lab {target.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
