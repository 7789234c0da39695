"""What a module cell says, and the module that several of them make."""

import ast
import re
from dataclasses import dataclass, field

HEADER = re.compile(r"# nanoserve/(\w+)\.py[ \t]*\n")
IMPORTS = ast.Import | ast.ImportFrom


class CellError(ValueError):
    """A module cell that cannot be placed; says which, and why."""


@dataclass
class Cell:
    """One module cell: its docstring, imports, and definitions as written, with their comments."""

    module: str
    day: str
    where: str
    doc: str = ""
    imports: set[str] = field(default_factory=set)
    parts: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """What the cell defines."""
        return list(self.parts)

    @staticmethod
    def name_of(node: ast.stmt) -> str | None:
        """The one name that a statement defines; a call stands for itself; else None."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return node.name
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if len(targets) == 1 and isinstance(targets[0], ast.Name):
                return targets[0].id
        return None

    @classmethod
    def parse(cls, source: str, day: str, number: int | None) -> "Cell":
        """Read a cell's source, header line included. CellError where it cannot be placed."""
        header = HEADER.match(source + "\n")
        where = day if number is None else f"{day}.ipynb, cell {number}"
        cell = cls(header[1], day, where)
        body = "\n" + (source + "\n")[header.end() :]  # line numbers stay the cell's own
        cell.read(body)
        return cell

    def read(self, source: str) -> None:
        """Take the statements of `source`."""
        try:
            nodes = ast.parse(source).body
        except SyntaxError as error:
            raise CellError(f"{self.where}, line {error.lineno}: {error.msg}") from error
        lines, end = source.splitlines(), 0
        for i, node in enumerate(nodes):
            start, end = end, node.end_lineno
            if i + 1 == len(nodes):
                end = len(lines)  # what trails belongs to the last definition
            elif nodes[i + 1].lineno <= end:
                self.refuse(nodes[i + 1], "write one statement to a line")
            text = "\n".join(lines[start:end]).strip("\n")
            self.place(node, text, first=i == 0)

    def place(self, node: ast.stmt, text: str, first: bool) -> None:
        """Take one statement, which `text` holds with the comments around it."""
        if first and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            self.doc = str(node.value.value).strip()
        elif isinstance(node, IMPORTS):
            if any(line.lstrip().startswith("#") for line in text.splitlines()):
                self.refuse(node, "a comment beside an import would be lost: move it")
            if isinstance(node, ast.ImportFrom) and (node.level or node.module == "__future__"):
                self.refuse(node, "relative and __future__ imports cannot be merged")
            self.take_import(node)
        else:
            name = self.name_of(node)
            if name is None:
                self.refuse(node, "only imports, definitions and constants belong in a module")
            if name in self.parts:
                self.refuse(node, f"{name} is defined twice in one cell")
            self.parts[name] = text

    def take_import(self, node: ast.Import | ast.ImportFrom) -> None:
        """Keep an import, a line for each name; one from its own module is not needed there."""
        origin = getattr(node, "module", None)
        if origin == f"nanoserve.{self.module}":
            return
        for alias in node.names:
            one = ast.ImportFrom(origin, [alias], 0) if origin else ast.Import([alias])
            self.imports.add(ast.unparse(one))

    def refuse(self, node: ast.stmt, why: str) -> None:
        raise CellError(f"{self.where}, line {node.lineno}: {why}")


class Module:
    """The text of a module, gathered from cells."""

    def __init__(self, name: str):
        self.name, self.doc, self.days = name, "", []
        self.imports, self.parts, self.origin = set(), {}, {}

    def add(self, cell: Cell) -> None:
        """Take a cell. CellError where it defines a name that is there already."""
        for name, text in cell.parts.items():
            if name in self.parts:
                raise CellError(f"{cell.where}: {name} is already defined in {self.origin[name]}")
            self.parts[name], self.origin[name] = text, cell.where
        self.imports |= cell.imports
        self.doc = self.doc or cell.doc
        if cell.day not in self.days:
            self.days.append(cell.day)

    def replace(self, text: str, cell: Cell) -> None:
        """Become the module `text` with a cell's definitions in it, in the book's order."""
        disk = Cell(self.name, "", f"{self.name}.py")
        disk.read(text)
        now = disk.parts | cell.parts
        self.parts = {name: now[name] for name in [*self.parts, *now] if name in now}
        self.imports |= disk.imports | cell.imports
        self.doc = cell.doc or self.doc

    def render(self) -> str:
        """The module's text: docstring, the imports it uses, definitions."""
        body, after_plain = "", False
        for text in self.parts.values():
            first = ast.parse(text).body[0]
            plain = isinstance(first, ast.Assign | ast.AnnAssign)
            near = plain and after_plain and not text.startswith("#")
            body += ("\n" if near else "\n\n\n") + text
            after_plain = plain
        imports = [line for line in sorted(self.imports) if self.uses(line, body)]
        days = ", ".join(sorted(self.days))
        built = f"Built in the book: {days}. Edit there, then run book/tangle.py."
        doc = f"{self.doc}\n\n{built}\n" if self.doc else built
        return f'"""{doc}"""\n\n' + "\n".join(imports) + body + "\n"

    @staticmethod
    def uses(line: str, body: str) -> bool:
        """Whether the name that an import binds occurs in the code."""
        bound = re.split(r"import | as ", line)[-1].split(".")[0]
        return re.search(rf"\b{bound}\b", body) is not None
