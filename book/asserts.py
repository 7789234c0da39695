"""Takes the checks of a page's numbers out of its cells: a part of book/practice.py."""

import ast

BINDING = ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign
BLOCKS = ast.For, ast.If, ast.With


def without_asserts(source: str) -> str:
    """Code without its assert statements, and without blocks that hold nothing else."""
    lines = source.split("\n")
    for first, last in reversed(asserts(ast.parse(source).body)):
        del lines[first - 1 : last]
    rest = "\n".join(lines).strip("\n")
    return rest if ast.parse(rest).body else ""  # what is left may be comments


def asserts(nodes: list[ast.stmt]) -> list[tuple[int, int]]:
    """Where statements that only assert stand: first and last line."""
    found = []
    for node in nodes:
        blocks = []
        if isinstance(node, ast.For | ast.While | ast.If | ast.With):
            blocks = [block for block in (node.body, getattr(node, "orelse", [])) if block]
        inside = [asserts(block) for block in blocks]
        empty = [len(part) == len(block) for part, block in zip(inside, blocks, strict=True)]
        if is_assert(node) or (blocks and all(empty)):
            found.append((node.lineno, node.end_lineno))
        else:  # a block cannot be left with nothing in it
            found += [
                at for part, gone in zip(inside, empty, strict=True) if not gone for at in part
            ]
    return found


def is_assert(node: ast.stmt) -> bool:
    """Whether a statement only asserts, as torch.testing.assert_close does."""
    call = getattr(node, "value", None)
    name = getattr(call.func, "attr", "") if isinstance(call, ast.Call) else ""
    return isinstance(node, ast.Assert) or (isinstance(node, ast.Expr) and name[:7] == "assert_")


def needed(source: str, later: list[str]) -> bool:
    """Whether code does more than bind names, or binds one that a cell of `later` reads."""
    tree = ast.parse(source)
    if not all(map(only_binds, tree.body)):
        return True
    names = bound(tree).keys()
    return any(names & read_first(text) for text in later)


def only_binds(node: ast.stmt) -> bool:
    """Whether a statement gives something a name, and has no other purpose."""
    if isinstance(node, BLOCKS):
        return all(map(only_binds, node.body + getattr(node, "orelse", [])))
    return isinstance(node, BINDING)


def bound(tree: ast.AST) -> dict[str, int]:
    """The names that code binds, at any depth: the first line of each."""
    lines = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names = [node.id]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [(alias.asname or alias.name).split(".")[0] for alias in node.names]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        else:
            names = [node.arg] if isinstance(node, ast.arg) else []
        for name in names:
            lines[name] = min(node.lineno, lines.get(name, node.lineno))
    return lines


def read_first(source: str) -> set[str]:
    """The names that code reads no later, as lines stand, than it binds them."""
    tree = ast.parse(source)
    lines = bound(tree)
    return {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Load)
        and node.lineno <= lines.get(node.id, node.lineno)
    }
