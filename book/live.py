"""Makes a module cell take effect as soon as it has run: in this kernel, and on disk.

That is what `%load_ext live` does, in the first cell of every notebook.
"""

import ast
import builtins
import contextlib
import errno
import importlib
import importlib.util
import linecache
import os
import re
import sys
import types
from pathlib import Path

import errors
from cells import Cell, CellError, dotted, global_names
from environment import settle_kernel
from modules import Module, changed, definitions
from rebinding import rebind
from tangle import (
    BOOK,
    locked,
    module_cells,
    module_path,
    package,
    read,
    tidy,
    write,
)


def install(shell, book: Path) -> None:
    """Watch the shell's cells: those that cannot be placed fail, the others take effect.

    Also quiet libraries, and nanoserve on the path.
    """
    settle_kernel()
    if not (package() / "__init__.py").exists():
        # Python would pass the folder over for another nanoserve.
        raise FileNotFoundError(f"{package()} is no package: it has no __init__.py")
    root = str(package().parent)
    sys.path[:] = [root, *(entry for entry in sys.path if entry != root)]
    cells = []

    def watch(lines: list[str]) -> list[str]:
        try:
            cell = Cell.parse("".join(lines), "this cell")
        except CellError as error:
            if isinstance(error.__cause__, SyntaxError):
                return lines  # Python will say so, and better
            raise SyntaxError(str(error)) from None  # shown as the cell's own error
        if cell is None:
            return lines
        cells.append((cell, "".join(lines)))
        # The cell's last act: where that fails, the cell fails.
        return [*lines, f"\nget_ipython().tangle({len(cells) - 1})\n"]

    def tangle(number: int) -> None:
        __tracebackhide__ = True
        take(*cells[number], shell.user_ns, book)

    shell.tangle = tangle
    watch.is_tangle = True
    others = [t for t in shell.input_transformers_post if not hasattr(t, "is_tangle")]
    shell.input_transformers_post = [*others, watch]
    errors.install(shell)


def take(cell: Cell, source: str, namespace: dict, book: Path) -> None:
    """Make a module cell that has just run in `namespace` take effect, here and on disk.

    Raises CellError, and changes nothing, where the module could not be what the cell was.
    """
    __tracebackhide__ = True
    path, module = module_path(cell.module), book_module(cell, book)
    known = module.parts.keys() | vars(builtins).keys()
    with locked(path):
        old = read(path)
        module.merge(old, cell)
        refuse_strangers(module, global_names(source) - known, namespace)
        text = tidy(module.render(), cell.module)
        execute(dotted(cell.module), path, text, cell)
        try:
            write(path, text)
        except OSError as error:  # A read-only checkout. Tracebacks find the text here.
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            linecache.cache[str(path)] = len(text), None, text.splitlines(True), str(path)
        linecache.checkcache(str(path))  # tracebacks and warnings show what is there now
    live = sys.modules[dotted(cell.module)]
    namespace.update((name, getattr(live, name)) for name in cell.parts)
    # Jupyter's server names the notebook to its kernel: somebody sits there.
    new = changed(old, text, cell) if "JPY_SESSION_NAME" in os.environ else []
    if new:
        print(f"nanoserve/{cell.module}.py: {', '.join(new)} changed")


def book_module(cell: Cell, book: Path) -> Module:
    """What the saved notebooks say of the cell's module: more or less, they are being edited.

    Raises CellError where a name in the cell is another chapter's.
    """
    module, owners = Module(cell.module), {}
    for other in module_cells(book, strict=False):
        if other.module == cell.module:
            for name in other.parts:
                owners.setdefault(name, set()).add(other.day)
            with contextlib.suppress(CellError):
                module.add(other)
    here = re.search(r"(day\d\d)\.ipynb$", os.environ.get("JPY_SESSION_NAME", ""))
    for name in cell.parts:
        days = owners.get(name, set())
        if len(days) > 1 or (here and days and here[1] not in days):
            raise CellError(f"{name} is already defined in {min(days)}.ipynb: take another name")
    return module


def refuse_strangers(module: Module, names: set[str], namespace: dict) -> None:
    """CellError where the notebook has one of these names and the module does not."""
    known = {name.split(".")[0] for name in module.imports} | module.parts.keys()
    if missing := sorted((names - known) & namespace.keys()):
        raise CellError(
            f"the notebook knows {', '.join(missing)}, but nanoserve/{module.name}.py does not: "
            "import or define it in this cell"
        )


def execute(name: str, path: Path, text: str, cell: Cell) -> None:
    """Run the cell's definitions in its module, and hand the new objects to who uses the old.

    The code is compiled as the module's text has it, so that tracebacks and sources fit.
    """
    __tracebackhide__ = True
    live = loaded(name, path)
    if live is None:
        spec = importlib.util.spec_from_file_location(name, path)
        live, code = importlib.util.module_from_spec(spec), ast.parse(text)
    else:
        code = definitions(text, list(cell.parts))
    before, known = dict(vars(live)), sys.modules.get(name)
    sys.modules[name] = live
    # Who asks for a source already while it is defined, as Triton does, gets this text.
    linecache.cache[str(path)] = len(text), None, text.splitlines(True), str(path)
    try:
        exec(compile(code, str(path), "exec"), vars(live))
    except BaseException:
        vars(live).clear()
        vars(live).update(before)
        if known is None:
            del sys.modules[name]
        raise
    finally:
        linecache.cache.pop(str(path), None)
    home, _, leaf = name.rpartition(".")
    if home in sys.modules:
        setattr(sys.modules[home], leaf, live)
    for part in cell.parts:
        if part in before:
            rebind(part, before[part], getattr(live, part))


def loaded(name: str, path: Path) -> types.ModuleType | None:
    """The module as this kernel has it, or as the file does; None where neither will do."""
    importlib.invalidate_caches()
    with contextlib.suppress(Exception):  # a broken file: the cell may be what mends it
        if name in sys.modules or path.exists():
            return importlib.import_module(name)
        importlib.import_module(name.rpartition(".")[0])  # it will have the module as a name
    return None


def load_ipython_extension(shell) -> None:
    """What %load_ext live does."""
    install(shell, BOOK)
