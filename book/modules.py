"""The text of a module, gathered from the cells that make it."""

import ast
import re

from cells import Cell, CellError, name_of

BUILT = re.compile(r"\s*Built in the book: (.*)\. Edit there, then run book/tangle\.py\.\s*")


class Module:
    """A module: docstring, imports by the name that they bind, definitions by name, in order."""

    def __init__(self, name: str):
        self.name, self.doc, self.days = name, "", []
        self.imports, self.parts, self.origin = {}, {}, {}

    def add(self, cell: Cell) -> None:
        """Take a cell of the book. CellError where it contradicts what is there already."""
        for name, text in cell.parts.items():
            if name in self.parts:
                raise CellError(f"{cell.where}: {name} is already defined in {self.origin[name]}")
            self.parts[name], self.origin[name] = text, cell.where
        for name, line in cell.imports.items():
            if self.imports.setdefault(name, line) != line:
                raise CellError(f"{cell.where}: {name} is already `{self.imports[name]}`")
        for name in self.parts.keys() & self.imports.keys():
            raise CellError(f"{cell.where}: {name} is both imported and defined in the module")
        if cell.doc and self.doc:
            raise CellError(f"{cell.where}: nanoserve/{self.name}.py has a docstring already")
        self.doc = self.doc or cell.doc
        if cell.day not in self.days:
            self.days.append(cell.day)

    def merge(self, text: str, cell: Cell) -> None:
        """From what the book says become the module that `text` is, with `cell` in it.

        Definitions stand in the book's order; what the book does not know yet stands beside its
        neighbour in the cell.
        """
        disk = Cell(self.name, "", f"nanoserve/{self.name}.py")
        disk.read(text)
        built = BUILT.search(disk.doc)
        self.days = self.days or (built[1].split(", ") if built else [])
        self.doc = cell.doc or BUILT.sub("", disk.doc) or self.doc
        self.imports |= disk.imports | cell.imports
        now = disk.parts | cell.parts
        order = [name for name in self.parts | disk.parts if name in now]
        mine = list(cell.parts)
        for i, name in enumerate(mine):
            if name not in order:
                below = (order.index(n) for n in mine[i:] if n in order)
                at = order.index(mine[i - 1]) + 1 if i else next(below, len(order))
                order.insert(at, name)
        self.parts = {name: now[name] for name in order}
        for name in cell.parts:
            self.imports.pop(name, None)
        for name in cell.imports:
            self.parts.pop(name, None)

    def render(self) -> str:
        """The module's text: docstring, the imports that are used, definitions."""
        body, above = "", None
        for text in self.parts.values():
            body += gap(above, text) + text
            above = text
        used = [line for name, line in self.imports.items() if occurs(name, body)]
        days = ", ".join(sorted(self.days))
        doc = [self.doc] if self.doc else []
        if days:
            doc.append(f"Built in the book: {days}. Edit there, then run book/tangle.py.")
        quoted = '"""' + "\n\n".join(doc) + ('\n"""' if len(doc) > 1 else '"""') if doc else ""
        return "\n".join([quoted, "", *sorted(used)]).strip("\n") + body + "\n"


def gap(above: str | None, text: str) -> str:
    """What stands between two definitions: constants of one line stay together."""
    if above is None:
        return "\n\n\n"
    first, second = ast.parse(above).body[0], ast.parse(text).body[0]
    if not all(isinstance(node, ast.Assign | ast.AnnAssign) for node in (first, second)):
        return "\n\n\n"
    # That is, `above` is a line, with comments at most over it, and `text` is a line alone.
    close = first.lineno == above.count("\n") + 1 and "\n" not in text
    return "\n" if close else "\n\n"


def occurs(name: str, body: str) -> bool:
    """Whether the code has the name that an import binds."""
    return re.search(rf"\b{name.split('.')[0]}\b", body) is not None


def definitions(text: str, names: list[str]) -> ast.Module:
    """Of a module's text: its imports, and its definitions of `names`, to be executed."""
    nodes = [
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.Import | ast.ImportFrom) or name_of(node) in names
    ]
    return ast.Module(nodes, [])


def changed(old: str, new: str, cell: Cell) -> list[str]:
    """Which of the cell's definitions differ between two texts of its module."""
    before, after = Cell(cell.module, "", "before"), Cell(cell.module, "", "after")
    before.read(old)
    after.read(new)
    return [name for name in cell.parts if before.parts.get(name) != after.parts.get(name)]
