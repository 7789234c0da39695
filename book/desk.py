"""The desk of a practice notebook: what its first cell lays out, and what is kept of the work.

    begin("day05")      in the first cell
    progress("day05")   in the last

A day works on a package of its own, .nanoserve/day05/nanoserve in the practice folder, laid out
anew whenever its first cell runs: the book's, with the reader's pieces of earlier days that have
passed in their place. A module cell puts the reader's piece of today in. mine/day05.json keeps the
text of every piece that was run, and of those with which the day's comparison was passed.
"""

import importlib
import linecache
import os
import shutil
import sys
from pathlib import Path

from cells import Cell, CellError, dotted, global_names
from modules import Module
from pieces import Record, missing_in, to_write
from tangle import BOOK, read, tidy, write


class Desk:
    """A day at work in a kernel. `live` holds the reader's pieces run since its first cell."""

    def __init__(self, day: str, folder: Path, names: dict | None = None):
        self.day, self.folder, self.live = day, folder, {}
        self.names = {} if names is None else names  # the notebook's
        self.record, self.wanted = Record(folder, day), to_write(day)
        self.earlier = {}  # day -> the pieces of it that are the reader's here

    @property
    def package(self) -> Path:
        return self.folder / ".nanoserve" / self.day / "nanoserve"

    def lay_out(self, mine: bool) -> None:
        """Make the package: the book's, with the reader's passed pieces of earlier days."""
        shutil.rmtree(self.package, ignore_errors=True)
        no_cache = shutil.ignore_patterns("__pycache__")
        shutil.copytree(BOOK.parent / "nanoserve", self.package, ignore=no_cache)
        self.earlier, texts = {}, {}
        for path in sorted((self.folder / "mine").glob("day*.json")) if mine else []:
            if path.stem >= self.day:
                continue
            for key, piece in Record(self.folder, path.stem).passed.items():
                cell = Cell.parse(piece, f"{path.name}, {key}")
                module = Module(cell.module)
                text = texts.get(cell.module) or read(self.package / f"{cell.module}.py")
                module.merge(text, cell)
                texts[cell.module] = module.render()
                self.earlier.setdefault(path.stem, []).append(key.rpartition(".")[2])
        for name, text in texts.items():
            write(self.package / f"{name}.py", tidy(text, name))
        forget_modules()
        for name in texts:
            importlib.import_module(dotted(name))

    def before(self, info) -> None:
        """A module cell is run first of all after a restart: give it the names of its module."""
        try:
            cell = Cell.parse(info.raw_cell or "", "this cell")
            known = vars(importlib.import_module(dotted(cell.module))) if cell else {}
            wanted = (global_names(info.raw_cell) - self.names.keys()) if cell else set()
        except Exception:  # the cell is not Python, or its module is not there yet
            return
        self.names.update((name, known[name]) for name in wanted & known.keys())

    def after(self, result) -> None:
        """A cell has run: keep the reader's piece, or mark as passed what the board has judged."""
        source = result.info.raw_cell or ""
        try:
            cell = Cell.parse(source, "this cell") if result.success else None
        except CellError:
            return
        if cell:
            self.keep(cell)
        elif "Scoreboard(" in source and is_passed(result, self.day):
            self.judged()

    def keep(self, cell: Cell) -> None:
        """Keep the text of each definition in a reader's cell; what is given is not theirs."""
        imports = "\n".join(sorted(cell.imports.values()))
        for name, text in cell.parts.items():
            key = f"{cell.module}.{name}"
            wanted = self.wanted.get(key)
            if wanted is not None and wanted.given and wanted.text == text:
                continue
            piece = "\n".join([f"# nanoserve/{cell.module}.py", imports, text, ""])
            self.live[key] = self.record.written[key] = piece
        self.record.save()

    def judged(self) -> None:
        """The day's comparison has been passed: say with what, and remember the reader's share."""
        whole = {k: v for k, v in self.live.items() if not missing_in(v, self.wanted.get(k))}
        self.record.passed |= whole
        self.record.save()
        wanted = [key for key, piece in self.wanted.items() if piece.functions]
        yours = ", ".join(short(key) for key in wanted if key in whole)
        books = ", ".join(short(key) for key in wanted if key not in self.live)
        half = ", ".join(short(key) for key in wanted if key in self.live and key not in whole)
        rest = f", and the book's own {books}" if books else ""
        if not yours:
            print(f"This board judged the book's own {books or half}, nothing of yours.")
        else:
            print(f"This board judged your {yours}{rest}.")
        if half:
            print(f"Not all written yet, and not called by the comparison: {half}.")

    def owns(self, function: str) -> bool:
        """Whether a function of this name, or of this last part of a name, is the reader's."""
        yours = {short(key) for key in self.live}.union(*self.earlier.values())
        pieces = [self.wanted[key] for key in self.live if key in self.wanted]
        methods = {name.split(".")[-1] for piece in pieces for name in piece.functions}
        return function.split(".")[0] in yours or function in methods

    def gives(self, function: str) -> bool:
        """Whether a function stands whole on this day's page."""
        name = function.split(".")[0]
        return any(name == short(k) and function not in p.functions for k, p in self.wanted.items())


def begin(day: str, mine: bool = True) -> None:
    """Lay out a day's package in this kernel, and say whose the pieces are.

    `mine=False` takes the book's for all earlier days.
    """
    from IPython import get_ipython

    shell, folder = get_ipython(), Path.cwd()
    if hasattr(shell, "desk"):
        shell.events.unregister("pre_run_cell", shell.desk.before)
        shell.events.unregister("post_run_cell", shell.desk.after)
    desk = shell.desk = Desk(day, folder, shell.user_ns)
    os.environ["NANOSERVE_PACKAGE"] = str(desk.package)
    os.environ.setdefault("NANOSERVE_WEIGHTS", str(BOOK.parent / "weights"))
    os.environ.setdefault("JPY_SESSION_NAME", f"{day}.ipynb")
    root = str(desk.package.parent)
    sys.path[:] = [root, *(entry for entry in sys.path if entry != root)]
    try:
        desk.lay_out(mine)
    except Exception as error:
        print(f"Your pieces of earlier days do not fit together, so the book's are used: {error}")
        desk.lay_out(False)
    shell.events.register("pre_run_cell", desk.before)
    shell.events.register("post_run_cell", desk.after)
    yours = [f"{', '.join(names)} (Day {int(d[3:])})" for d, names in desk.earlier.items()]
    if yours:
        print(f"Your own, passed on their days: {'; '.join(yours)}. The book's: all else.")
    elif day != "day02":
        print("Everything of earlier days is the book's own: none of your pieces has passed yet.")
    print("Today's pieces are the book's too, each until you run your own.")


def forget_modules() -> None:
    """Have nanoserve imported anew, and its lines read anew where they are shown."""
    linecache.checkcache()
    for name in [name for name in sys.modules if name.split(".")[0] == "nanoserve"]:
        del sys.modules[name]


def is_passed(result, day: str) -> bool:
    """Whether a cell has ended in the board of this day's comparison."""
    board = result.result
    if not str(getattr(board, "title", "")).startswith(f"Day {int(day[3:])},"):
        return False
    try:
        return bool(board.verdict())
    except AssertionError:  # nothing was compared
        return False


def short(key: str) -> str:
    """The name of a piece without its module."""
    return key.rpartition(".")[2]


def progress(day: str) -> None:
    """Print for each function of a day whether it is written, and whether it has passed."""
    from IPython import get_ipython

    desk = getattr(get_ipython(), "desk", None) or Desk(day, Path.cwd())
    record, rows = desk.record, []
    for key, piece in desk.wanted.items():
        text = record.written.get(key, "")
        missing = missing_in(text, piece)
        same = record.passed.get(key) == text
        state = "yes" if same else "an earlier version" if key in record.passed else "no"
        for name in piece.functions:
            rows.append((name, "no" if name in missing else "yes", state))
    width = max(len(name) for name, *_ in rows)
    print(f"{'':<{width}}  written  passed")
    for name, written, passed in rows:
        print(f"{name:<{width}}  {written:<7}  {passed}")
    counts = [sum(row[i] == "yes" for row in rows) for i in (1, 2)]
    print(f"{counts[0]} of {len(rows)} written, {counts[1]} of {len(rows)} passed")
    idle = [short(key) for key in desk.wanted if key in record.written and key not in desk.live]
    if idle:
        print(f"Not run since the first cell, so the book's own is at work: {', '.join(idle)}")
