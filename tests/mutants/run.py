"""Running a check against a package with a planted bug, in a process of its own."""

import ast
import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from itertools import filterfalse
from pathlib import Path

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
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(PACKAGE, Path(folder) / "nanoserve")
        if mutant:
            path = Path(folder) / "nanoserve" / f"{mutant.module}.py"
            path.write_text(mutant.source(), "utf-8")
        return Outcome(*warm().run(folder, source, mutant and mutant.module))


def judge(mutant: Mutant) -> Outcome:
    """What the mutant's judge says of it, the quick checks first."""
    source = judge_source(mutant.judge)
    return run_check(made_up_first(source), mutant)


def made_up_first(source: str) -> str:
    """A comparison cell with its calls that are given the board alone, or nothing, up front.

    They make up what they compare, and most bugs show there in a tenth of the time that the
    checkpoints take. None hands anything on, so the verdict is the same in any order.
    """
    tree = ast.parse(source)
    made = [i for i, each in enumerate(tree.body) if ast.unparse(each).startswith("board = ")]
    if made:
        first, rest = tree.body[: made[0] + 1], tree.body[made[0] + 1 :]
        tree.body = [*first, *filter(of_board_alone, rest), *filterfalse(of_board_alone, rest)]
    return ast.unparse(tree)


def of_board_alone(statement: ast.stmt) -> bool:
    """Whether it is `check_this(board)` or `check_that()`."""
    return bool(re.fullmatch(r"[\w.]+\((board)?\)", ast.unparse(statement)))
