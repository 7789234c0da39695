"""Running a check against a package with a planted bug, in a process of its own."""

import ast
import json
import re
from dataclasses import dataclass

from mutants.catalog import PACKAGE, Mutant
from mutants.warm import warm

BOOK, TESTS = PACKAGE.parent / "book", PACKAGE.parent / "tests"
# A file of tests becomes a script: its tests take no argument.
CALL_ALL = """
for name, test in list(globals().items()):
    if name.startswith("test_"):
        test()
"""


@dataclass(frozen=True)
class Outcome:
    """How a check ended: `caught`, `passed` or `crashed`; by which error, after what CPU time."""

    verdict: str
    error: str = ""
    message: str = ""
    seconds: float = 0.0

    @property
    def difference(self) -> float | None:
        """The largest difference that the check measured, where it measured one."""
        found = re.search(r"Greatest absolute difference: (\S+)|difference: (\S+)", self.message)
        return float(found[1] or found[2]) if found else None


def judge_source(judge: str) -> str:
    """The code of a judge: a day's comparison cell, or a file of tests."""
    if not judge.startswith("day"):
        return (TESTS / f"{judge}.py").read_text("utf-8") + CALL_ALL
    cells = json.loads((BOOK / f"{judge}.ipynb").read_text("utf-8"))["cells"]
    tagged = [c for c in cells if "comparison" in c["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{judge}.ipynb has {len(tagged)} cells tagged comparison, 1 is wanted")
    return "".join(tagged[0]["source"])


def run_check(source: str, mutant: Mutant | None) -> Outcome:
    """Run `source` against nanoserve with `mutant` planted, or as it is.

    The process is new but has the libraries loaded already: nanoserve is not among them.
    """
    planted = mutant and (mutant.module, mutant.source())
    return Outcome(*warm().run(source, planted))


def judge(mutant: Mutant) -> Outcome:
    """What the mutant's judge says of it, the quick checks first."""
    source = judge_source(mutant.judge)
    outcome = run_check(quick_first(source, mutant.module), mutant)
    if outcome.error == "the process died" and mutant.module.startswith("kernels/"):
        # A store past the end of a tensor may end the interpreter before a check can speak.
        return Outcome("caught", outcome.error)
    return outcome


def quick_first(source: str, module: str) -> str:
    """A comparison cell with its checks that need no checkpoint up front, `module`'s before all.

    They make up what they compare, and most bugs show there in a tenth of the time that the
    checkpoints take. None hands anything on, so the verdict is the same in any order.
    """
    tree = ast.parse(source)
    begin = next((i for i, each in enumerate(tree.body, 1) if makes_board(each)), 0)
    first, rest = tree.body[:begin], tree.body[begin:]
    later = {name for each in rest for name in names(each, ast.Store)}
    about = checks_of(module, first)

    def order(statement: ast.stmt) -> int:
        """A call of a check goes first, unless it is given what a loop over checkpoints binds."""
        check = ast.unparse(statement).startswith("check_")
        if not check or not later.isdisjoint(names(statement, ast.Load)):
            return 2
        return 0 if about & names(statement, ast.Load) else 1

    tree.body = [*first, *sorted(rest, key=order)]
    return ast.unparse(tree)


def checks_of(module: str, imports: list[ast.stmt]) -> set[str]:
    """The names that are imported from a file of checks which itself imports `module`."""
    asked, found = f"from nanoserve.{module.replace('/', '.')} import ", set()
    for each in imports:
        if isinstance(each, ast.ImportFrom) and each.module.startswith("nanoserve.checks."):
            file = PACKAGE.parent / f"{each.module.replace('.', '/')}.py"
            if asked in file.read_text("utf-8"):
                found |= {alias.name for alias in each.names}
    return found


def makes_board(statement: ast.stmt) -> bool:
    """Whether it is `board = Scoreboard(...)`."""
    return isinstance(statement, ast.Assign) and "Scoreboard(" in ast.unparse(statement)


def names(statement: ast.stmt, context: type) -> set[str]:
    """The names that a statement reads (ast.Load) or binds (ast.Store)."""
    found = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
    return {node.id for node in found if isinstance(node.ctx, context)}
