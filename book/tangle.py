"""Keeps the book's module cells and nanoserve/*.py the same text.

A code cell whose first line is `# nanoserve/NAME.py` belongs to that module.

    python book/tangle.py           write the modules from the notebooks
    python book/tangle.py --check   print a diff and exit 1 where they differ

In a notebook, `%load_ext tangle` makes each such cell take effect in the module, on disk and in
this kernel, as soon as it has run without an error. The folder that stands for nanoserve/ is
$NANOSERVE_PACKAGE, if set: practice notebooks have a package of their own.
"""

import ast
import contextlib
import difflib
import hashlib
import importlib
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import nbformat
from cells import HEADER, Cell, CellError, Module
from filelock import FileLock

BOOK = Path(__file__).resolve().parent
QUIET = {
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_OFFLINE": "1",
}


def package() -> Path:
    """The folder that the modules are written to."""
    return Path(os.environ.get("NANOSERVE_PACKAGE") or BOOK.parent / "nanoserve")


def module_cells(book: Path) -> list[Cell]:
    """Every module cell of the book, in its order. CellError where one cannot be placed."""
    found = []
    for path in sorted(book.glob("day*.ipynb")):
        for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
            if cell.cell_type == "code" and HEADER.match(cell.source + "\n"):
                found.append(Cell.parse(cell.source, path.stem, number))
    return found


def from_book(book: Path = BOOK) -> dict[str, Module]:
    """The modules that the notebooks make. CellError where a name is defined twice."""
    modules = {}
    for cell in module_cells(book):
        modules.setdefault(cell.module, Module(cell.module)).add(cell)
    return modules


def tidy(text: str, name: str) -> str:
    """Imports sorted and code laid out by ruff; as it is where ruff is not installed."""
    ruff = [sys.executable, "-m", "ruff"]
    # The file is named as if in the repository, whose settings apply.
    place = ["--stdin-filename", str(BOOK.parent / "nanoserve" / f"{name}.py"), "-"]
    for command in (["check", "--select", "I", "--fix-only", "--quiet"], ["format", "--quiet"]):
        run = subprocess.run(
            [*ruff, *command, *place], input=text, capture_output=True, text=True, cwd=BOOK.parent
        )
        if run.returncode:
            return text
        text = run.stdout
    return text


def write(path: Path, text: str) -> bool:
    """Put `text` into the file, at once or not at all, if it is not there already."""
    if path.exists() and path.read_text("utf-8") == text:
        return False
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text, "utf-8")
    os.replace(temporary, path)
    return True


def lock(path: Path) -> FileLock:
    """One writer at a time for a module, between processes; the lock lies outside the tree."""
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"tangle-{digest}.lock")


def main(arguments: list[str], book: Path = BOOK) -> int:
    """The command line; returns the exit status."""
    stale = False
    for name, module in from_book(book).items():
        path, text = package() / f"{name}.py", tidy(module.render(), name)
        if "--check" in arguments:
            old = path.read_text("utf-8") if path.exists() else ""
            names = f"{path.name} on disk", f"{path.name} from the book"
            sys.stdout.writelines(
                difflib.unified_diff(old.splitlines(True), text.splitlines(True), *names)
            )
            stale |= old != text
        else:
            with lock(path):
                if write(path, text):
                    print(f"wrote nanoserve/{path.name}")
    return int(stale)


def take(source: str, namespace: dict, book: Path = BOOK) -> None:
    """Make a module cell that has just run take effect, on disk and in this kernel."""
    cell = Cell.parse(source, "this notebook", None)
    path = package() / f"{cell.module}.py"
    with lock(path):
        module = from_book(book).get(cell.module) or Module(cell.module)
        module.replace(path.read_text("utf-8") if path.exists() else "", cell)
        text = tidy(module.render(), cell.module)
        # Where the checkout is read-only, the cell still takes effect in this kernel.
        with contextlib.suppress(OSError):
            write(path, text)
    live = import_live(f"nanoserve.{cell.module}", text)
    old = {name: live.__dict__.get(name) for name in cell.names}
    nodes = [node for node in ast.parse(text).body if wanted(node, cell.names)]
    exec(compile(ast.Module(nodes, []), str(path), "exec"), live.__dict__)
    others = [m for n, m in list(sys.modules.items()) if n.startswith("nanoserve.")]
    for name in cell.names:
        for other in others:
            if old[name] is not None and other.__dict__.get(name) is old[name]:
                setattr(other, name, live.__dict__[name])
        if name in live.__dict__:
            namespace[name] = live.__dict__[name]


def wanted(node: ast.stmt, names: list[str]) -> bool:
    """Whether a statement of a module is one that a cell brings: an import or a definition."""
    return isinstance(node, ast.Import | ast.ImportFrom) or Cell.name_of(node) in names


def import_live(name: str, text: str) -> types.ModuleType:
    """The module as this kernel has it; made from its text where there is no file."""
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, f"{name} (not on disk)", "exec"), module.__dict__)
    return module


def load_ipython_extension(shell) -> None:
    """What %load_ext does: quiet libraries, nanoserve on the path, module cells watched."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if str(package().parent) not in sys.path:
        sys.path.insert(0, str(package().parent))
    shell.user_ns["_tangle"] = lambda source: take(source, shell.user_ns)

    def watch(lines: list[str]) -> list[str]:
        source = "".join(lines)
        if not HEADER.match(source + "\n"):
            return lines
        try:
            Cell.parse(source, "this notebook", None)
        except CellError as error:
            raise SyntaxError(str(error)) from None  # shown as the cell's own error
        # The cell's last act: where that fails, the cell fails.
        return [*lines, f"\n_tangle({source!r})\n"]

    watch.tangle = True
    old = shell.input_transformers_post
    old[:] = [t for t in old if not hasattr(t, "tangle")] + [watch]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except CellError as error:
        sys.exit(f"error: {error}")
