"""Writes practice/dayNN.ipynb, the chapters with the answers taken out: make practice.

    python book/practice.py

Each has the signatures and docstrings of its module cells and none of the bodies, a folded hint
under each, and the comparison that judges what the reader writes. They work on a package of their
own, practice/nanoserve, so the book's stays as it is. What is there already is never overwritten.

That package starts as a copy of the book's. A module cell puts the reader's piece in, and a day
that is begun anew takes the book's until that cell has run: its first cells borrow the finished
model, which would not run on half a piece.
"""

import ast
import shutil
import sys
from pathlib import Path

import nbformat
from cells import HEADER, Cell
from modules import Module
from nbformat.v4 import new_code_cell, new_markdown_cell
from tangle import locked, module_cells, read, tidy, write

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
SETUP = """\
import os
import sys
from pathlib import Path

os.environ["NANOSERVE_PACKAGE"] = str(Path.cwd() / "nanoserve")
os.environ.setdefault("NANOSERVE_WEIGHTS", str(Path.cwd().parent / "weights"))
sys.path[:0] = [str(Path.cwd()), str(Path.cwd().parent / "book")]
from practice import begin

begin("{day}")
%load_ext live"""
PROGRESS = """\
from practice import progress

progress("{day}")"""
TODO = "is yours to write"
HARNESS = "reference"  # stays whole: it is the judge


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


def bodies(tree: ast.Module) -> list[str]:
    """The names of the functions that do something."""
    return [name for name, function in functions(tree) if body_of(function)]


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
        stub = f'raise NotImplementedError("{left([name], day)[0]}")'
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
            if cell.source.endswith("%load_ext live"):
                cell.source = SETUP.format(day=day)
            header = HEADER.match(cell.source + "\n")
            if header and header[1] != HARNESS:
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


def left(names: list[str], day: str) -> list[str]:
    """What stands in the practice package for each function that is not written."""
    return [f"Day {int(day[3:])}: {name} {TODO}" for name in names]


def begin(day: str, folder: Path | None = None) -> None:
    """Put the book's own pieces of a day into the practice package, marked as not written."""
    package = (folder or Path.cwd()) / "nanoserve"
    for cell in day_cells(day):
        path, module = package / f"{cell.module}.py", Module(cell.module)
        for name, text in cell.parts.items():
            todo = left(bodies(ast.parse(text)), day)
            cell.parts[name] = "\n".join([*(f"# {line}" for line in todo), text])
        with locked(path):
            module.merge(read(path), cell)
            write(path, tidy(module.render(), cell.module))


def progress(day: str, folder: Path | None = None) -> None:
    """Print which functions of a day are written and which are not."""
    package = (folder or Path.cwd()) / "nanoserve"
    text = "\n".join(read(path) for path in sorted(package.rglob("*.py")))
    names = [
        name
        for cell in day_cells(day)
        for part in cell.parts.values()
        for name in bodies(ast.parse(part))
    ]
    todo = [name for name, line in zip(names, left(names, day), strict=True) if line in text]
    for name in names:
        print("to write" if name in todo else "done    ", name)
    print(f"{len(names) - len(todo)} of {len(names)}, since the first cell ran")


def day_cells(day: str) -> list[Cell]:
    """The module cells of a day that are the reader's to write: the harness is not, it judges."""
    return [c for c in module_cells(BOOK) if c.day == day and c.module != HARNESS]


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
