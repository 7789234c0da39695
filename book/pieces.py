"""What a day leaves to a practice reader to write, and the record of what they wrote."""

import ast
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

from errors import TODO
from tangle import BOOK, module_cells, read, write

HARNESS = "reference"  # stays whole: it is the judge


@dataclass
class Piece:
    """A definition of the book's; `functions` are the names of those in it to be written."""

    text: str
    given: bool
    functions: list[str] = field(default_factory=list)


@cache
def hints() -> dict[str, dict[str, list[str] | str]]:
    """hints.toml: by module and function, the steps to it, or "given" where it stays whole."""
    return tomllib.loads((BOOK / "hints.toml").read_text("utf-8"))


def is_given(module: str, function: str) -> bool:
    """Whether a function stays whole though its cell is to be written."""
    return hints().get(module, {}).get(function) == "given"


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> list[tuple[str, Function]]:
    """Every function and method of a cell, by its qualified name."""
    found = []
    for node in tree.body:
        if isinstance(node, Function):
            found.append((node.name, node))
        elif isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, Function)]
            found += [(f"{node.name}.{method.name}", method) for method in methods]
    return found


def body_of(function: Function) -> list[ast.stmt]:
    """A function's statements after its docstring."""
    has_doc = ast.get_docstring(function) is not None
    return function.body[1:] if has_doc else function.body


def blanks(source: str, module: str) -> list[tuple[str, Function]]:
    """The functions of a module cell that a reader is to write."""
    return [
        (name, function)
        for name, function in functions(ast.parse(source))
        if body_of(function) and not is_given(module, name)
    ]


def to_write(day: str) -> dict[str, Piece]:
    """The pieces of a day by "layers.SwiGLU"."""
    found = {}
    for cell in module_cells(BOOK):
        if cell.day == day:
            given = cell.given or cell.module == HARNESS
            for name, text in cell.parts.items():
                names = [] if given else [n for n, _ in blanks(text, cell.module)]
                found[f"{cell.module}.{name}"] = Piece(text, given or not names, names)
    return found


def left(name: str, day: str) -> str:
    """What stands for a function that is not written yet."""
    return f"Day {int(day[3:])}: {name} {TODO}"


def missing_in(text: str, piece: Piece | None) -> list[str]:
    """Which functions of a piece a reader's text of it lacks, or has left blank."""
    if piece is None:  # a helper of the reader's own
        return []
    try:
        written = dict(functions(ast.parse(text)))
    except SyntaxError:
        written = {}
    return [
        name
        for name in piece.functions
        if name not in written or f"{name} {TODO}" in ast.unparse(written[name])
    ]


class Record:
    """A reader's pieces of a day: the latest text of each, and the latest that passed.

    Each goes by "layers.SwiGLU", and its text is a module cell of that piece alone.
    """

    def __init__(self, folder: Path, day: str):
        self.path, self.day = folder / "mine" / f"{day}.json", day
        kept = json.loads(read(self.path) or "{}")
        self.written, self.passed = kept.get("written", {}), kept.get("passed", {})

    def save(self) -> None:
        kept = {"written": self.written, "passed": self.passed}
        write(self.path, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
