"""Keeps the book's module cells and nanoserve/*.py the same text.

A code cell whose first line is `# nanoserve/NAME.py`, or `# nanoserve/engine/NAME.py`, belongs to
that module.

    python book/tangle.py           write the modules from the notebooks
    python book/tangle.py --check   print a diff and exit 1 where they differ

In a notebook, `%load_ext live` makes each such cell take effect at once. The folder that stands for
nanoserve/ is $NANOSERVE_PACKAGE, if set: practice notebooks have a package of their own.
"""

import argparse
import contextlib
import difflib
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from cells import Cell, CellError
from filelock import FileLock
from modules import BUILT, Module

BOOK = Path(__file__).resolve().parent


def package() -> Path:
    """The folder that the modules are written to."""
    return Path(os.environ.get("NANOSERVE_PACKAGE") or BOOK.parent / "nanoserve").resolve()


def module_path(module: str) -> Path:
    """The file of a module. CellError where it would lie in a folder that is no package."""
    path = package() / f"{module}.py"
    for folder in path.parents[: module.count("/")]:
        if not (folder / "__init__.py").exists():
            where = folder.relative_to(package())
            raise CellError(f"nanoserve/{where} is no package: give it an __init__.py first")
    return path


def module_cells(book: Path, strict: bool = True) -> Iterator[Cell]:
    """Every module cell of the book, in its order.

    Raises CellError where one cannot be placed, or a notebook cannot be read; if not `strict`,
    that one is left out; a whole notebook, with a warning.
    """
    for path in sorted(book.glob("day[0-9][0-9].ipynb")):
        try:
            cells = json.loads(path.read_text("utf-8"))["cells"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            text = f"{path.name} cannot be read as a notebook: {error}"
            if strict:
                raise CellError(text) from error
            warnings.warn(text, stacklevel=2)
            continue
        for number, cell in enumerate(cells):
            if cell["cell_type"] == "code":
                source, where = "".join(cell["source"]), f"{path.name}, cell {number}"
                try:
                    found = Cell.parse(source, where, path.stem)
                except CellError:
                    if strict:
                        raise
                    continue
                if found:
                    found.given = "given" in cell["metadata"].get("tags", [])
                    yield found


def from_book(book: Path = BOOK) -> dict[str, Module]:
    """The modules that the notebooks make. CellError where they contradict themselves."""
    modules = {}
    for cell in module_cells(book):
        modules.setdefault(cell.module, Module(cell.module)).add(cell)
    return modules


def tidy(text: str, name: str) -> str:
    """Imports sorted and code laid out by ruff; as it is where ruff is not installed."""
    if importlib.util.find_spec("ruff") is None:
        return text
    # The file is named as if in the repository, whose settings apply.
    place = ["--stdin-filename", str(BOOK.parent / "nanoserve" / f"{name}.py"), "-"]
    for command in (["check", "--select", "I", "--fix-only", "--quiet"], ["format", "--quiet"]):
        run = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *place],
            input=text.encode(),
            stdout=subprocess.PIPE,
            cwd=BOOK.parent,
            check=True,
        )
        text = run.stdout.decode()
    return text


def read(path: Path) -> str:
    """A module's text, empty where there is no file."""
    return path.read_text("utf-8") if path.exists() else ""


def write(path: Path, text: str) -> bool:
    """Put `text` into the file, at once or not at all, if it is not there already."""
    if path.exists() and read(path) == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_text(text, "utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time changes this module. The lock lies outside the tree."""
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    with contextlib.ExitStack() as stack:
        # Who may not make the lock (it is another user's) may not write the module either.
        with contextlib.suppress(OSError):
            stack.enter_context(FileLock(Path(tempfile.gettempdir()) / f"tangle-{digest}.lock"))
        yield


def difference(name: str, old: str, new: str) -> Iterator[str]:
    """A unified diff, from the module on disk to what the book says."""
    names = f"nanoserve/{name}.py on disk", f"nanoserve/{name}.py from the book"
    return difflib.unified_diff(old.splitlines(True), new.splitlines(True), *names)


def check(texts: dict[str, str]) -> int:
    """Print how the modules on disk differ from the book's; return the exit status."""
    lines = []
    for path in sorted(package().rglob("*.py")):
        name = path.relative_to(package()).with_suffix("").as_posix()
        if name not in texts and BUILT.search(read(path)):
            lines.append(f"nanoserve/{name}.py is no longer built in the book\n")
    for name, text in texts.items():
        lines += difference(name, read(module_path(name)), text)
    sys.stdout.writelines(lines)
    return int(bool(lines))


def refuse_to_lose(module: Module, old: str) -> None:
    """CellError where a hand-written file has definitions that the book lacks."""
    disk = Cell(module.name, "", "")
    if not BUILT.search(old):
        with contextlib.suppress(CellError):  # not of the form that a module of the book has
            disk.read(old)
        if lost := [name for name in disk.parts if name not in module.parts]:
            raise CellError(
                f"nanoserve/{module.name}.py is written by hand, and the book does not build "
                f"its {', '.join(lost)}: move the file away to have it written"
            )


def main(arguments: list[str] | None = None, book: Path = BOOK) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Write nanoserve's modules from the book's cells.")
    parser.add_argument("--check", action="store_true", help="only show what differs")
    only_check = parser.parse_args(arguments).check
    if importlib.util.find_spec("ruff") is None:
        raise CellError("ruff, which lays out the modules, is not installed: see requirements.txt")
    modules = from_book(book)
    texts = {name: tidy(module.render(), name) for name, module in modules.items()}
    if only_check:
        return check(texts)
    paths = {name: module_path(name) for name in texts}
    for name, text in texts.items():
        path = paths[name]
        with locked(path):
            refuse_to_lose(modules[name], read(path))
            if write(path, text):
                print(f"wrote nanoserve/{name}.py")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CellError as error:
        sys.exit(f"error: {error}")
