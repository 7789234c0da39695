"""What one module cell says: its docstring, imports and definitions, each with its comments."""

import ast
import inspect
import io
import itertools
import re
import symtable
import tokenize
from dataclasses import dataclass, field

HEADER = re.compile(r"(?:[ \t]*\n)*# nanoserve/(\w+(?:/\w+)*)\.py[ \t]*\n")
ALMOST = re.compile(r"^#[ \t]*nanoserve/[\w./]*[ \t:]*$", re.MULTILINE)


class CellError(ValueError):
    """A module cell that cannot be placed; says which, and why."""


@dataclass
class Cell:
    """One module cell. `imports` goes by the names they bind, `parts` by those they define.

    `module` is the file within nanoserve/ without its suffix: "layers", "engine/blocks". A cell
    with the tag `given` is whole in practice notebooks too.
    """

    module: str
    day: str
    where: str
    doc: str = ""
    imports: dict[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    given: bool = False

    @classmethod
    def parse(cls, source: str, where: str, day: str = "") -> "Cell | None":
        """Read a cell's source; None where it is no module cell.

        Raises CellError where it cannot be placed; that is caused by SyntaxError where it is
        not Python at all.
        """
        header = HEADER.match(source + "\n")
        end = header.end() if header else 0
        if stray := ALMOST.search(source, end):
            line = source.count("\n", 0, stray.start()) + 1
            why = "the line that names a module must be `# nanoserve/NAME.py`, the cell's first"
            raise CellError(f"{where}, line {line}: {why}, and the only one")
        if not header:
            return None
        cell = cls(header[1], day, where)
        # Line numbers stay the cell's own.
        cell.read("\n" * header[0].count("\n") + source[end:])
        if not (cell.doc or cell.imports or cell.parts):
            raise CellError(f"{where}: there is nothing to put into the module")
        return cell

    def read(self, source: str) -> None:
        """Take the statements of `source`.

        A comment belongs to the statement right below it; after a blank line, to the one above.
        """
        try:
            nodes = ast.parse(source).body
        except SyntaxError as error:
            raise CellError(f"{self.where}, line {error.lineno}: {error.msg}") from error
        lines, start = source.split("\n"), 0
        for node, following in itertools.zip_longest(nodes, nodes[1:]):
            first, stop = first_line(node), len(lines)
            if following is not None:
                stop = first_line(following)
                if stop < node.end_lineno:
                    self.refuse(following, "write one statement to a line")
                while stop > node.end_lineno and lines[stop - 1].startswith("#"):
                    stop -= 1
            kept = not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)
            if not kept and following is not None:
                stop = node.end_lineno  # nobody would miss an import's comment here
            above = [line.strip() for line in lines[start:first] if line.strip()]
            text = "\n".join([*above, *lines[first:stop]]).rstrip()
            self.place(node, text, node is nodes[0])
            start = stop

    def place(self, node: ast.stmt, text: str, first: bool) -> None:
        """Take one statement, which `text` holds with its comments."""
        is_import, is_doc = isinstance(node, ast.Import | ast.ImportFrom), first and is_text(node)
        if (is_import or is_doc) and has_comment(text):
            self.refuse(node, "a comment beside an import or a docstring would be lost")
        if is_import:
            self.take_import(node)
        elif is_doc:
            self.doc = inspect.cleandoc(node.value.value)
            if "\\" in self.doc or '"""' in self.doc:
                self.refuse(node, "a module's docstring is plain text, without backslashes")
        else:
            name = name_of(node)
            if name is None:
                self.refuse(node, "only imports, definitions and constants belong in a module")
            if name in self.parts:
                self.refuse(node, f"{name} is defined twice in one cell")
            self.parts[name] = text

    def take_import(self, node: ast.Import | ast.ImportFrom) -> None:
        """Keep an import, a line for each name; one from its own module is not needed there."""
        origin = getattr(node, "module", None)
        if getattr(node, "level", 0) or origin == "__future__" or node.names[0].name == "*":
            self.refuse(node, "relative, __future__ and * imports cannot be merged")
        if origin == dotted(self.module):
            return
        for alias in node.names:
            one = ast.ImportFrom(origin, [alias], 0) if origin else ast.Import([alias])
            self.imports[alias.asname or alias.name] = ast.unparse(one)

    def refuse(self, node: ast.stmt, why: str) -> None:
        raise CellError(f"{self.where}, line {node.lineno}: {why}")


def dotted(module: str) -> str:
    """What Python calls a module: nanoserve.engine.blocks for engine/blocks."""
    return ".".join(["nanoserve", *module.split("/")])


def name_of(node: ast.stmt) -> str | None:
    """The one name that a statement defines, or None."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if len(targets) == 1 and isinstance(targets[0], ast.Name):
            return targets[0].id
    return None


def is_text(node: ast.stmt) -> bool:
    """Whether a statement is a string alone, as a docstring is."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def first_line(node: ast.stmt) -> int:
    """The line on which a statement starts, decorators included, counted from 0."""
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)]) - 1


def has_comment(text: str) -> bool:
    """Whether Python code has a comment."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return any(token.type == tokenize.COMMENT for token in tokens)


def global_names(source: str) -> set[str]:
    """The global names that code reads."""
    names, tables = set(), [symtable.symtable(source, "cell", "exec")]
    for table in tables:
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or table is tables[0]):
                names.add(symbol.get_name())
    return names
