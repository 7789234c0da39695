"""Writes book/bugs.md from a run of all planted bugs: python tests/mutants/page.py"""

import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from mutants.catalog import Mutant, catalog  # noqa: E402
from mutants.proven import record  # noqa: E402
from mutants.run import BOOK, Outcome, judge, run_check  # noqa: E402

PAGE = BOOK / "bugs.md"
EQUIVALENT = "Not counted: edits that no valid use shows"
INTRO = """\
# The bugs this book catches

"It matches HuggingFace to 1e-5" is worth as much as the bugs it would notice. So we planted
{count} of them, one at a time, each a small edit that a person could really make. {count_day} are
in the engine, and are held against the comparison cell of the day that builds the piece. A cell
compares every layer of two checkpoints, and calls the day's checks in `nanoserve/checks/` for what
these cannot show: odd sizes, other dtypes, far positions, files that must be refused.

Who judges the judge? A comparison that looks at half of a tensor, or takes 1e-4, passes everything
that is right, and no chapter would look different. So {count_judge} of the bugs are in the judge
itself: in what records HuggingFace (`reference.py`), compares (`comparison.py`) and holds calls to
their word (`checks/common.py`). The first is held by Day 2's cell against a run of HuggingFace
without our hooks; the other two by tests of their own, which say of right and wrong inputs what
must come of them. All {count} are caught.

The last column asks what a weaker test would have said: HuggingFace's own initial weights (all
gains 1, projections near 0), a head of 8 channels, one row of 8 tokens, the last hidden state at
1e-5; then one prompt, greedily, for 20 tokens, alone and with all the room it wants; and a sentence
in English to tokens and back. It is a common way to test a from-scratch engine, and it lets
{missed} of {asked} pass. The bugs in the judge and in the accounts of cost are not asked of it: it
has no such part.

"Off by" is the first difference that is reported, against the bar of that check: 1e-5, less
in float64 and for weights, which must be equal. Some checks have tiny or huge inputs on purpose, so
a text may show less of a bug. It is nan where a result is NaN, and "noticed" where there is no
difference to measure, such as an error that was not raised. The tables are written by
`tests/mutants/page.py` from a run, and `make bugs` runs every row's verdict again. CI does that
for each change of the code; for any other change it runs a tenth of them, drawn anew each time.
The other columns are of the day this page was written.
"""
COLUMNS = "| bug | what it looks like | off by | weaker test |\n|---|---|---|---|\n"
JUDGE_COLUMNS = "| bug | what it looks like |\n|---|---|\n"


def of_the_judge(mutant: Mutant) -> bool:
    """Whether the bug is in what compares, which the weaker test does not have."""
    return mutant.module.startswith(("reference", "comparison", "signatures", "checks/"))


def heading(mutant: Mutant) -> str:
    """The heading of the table that has the mutant."""
    if mutant.judge.startswith("day"):
        return f"Day {int(mutant.judge[3:])}, in `{mutant.module}.py`"
    return f"The judge, in `{mutant.module}.py`"


def caught_by(mutant: Mutant) -> str:
    """A sentence on who notices the bugs of a table."""
    if mutant.judge.startswith("day"):
        return (
            f"Caught by the comparison cell of [Day {int(mutant.judge[3:])}]({mutant.judge}.ipynb)."
        )
    return f"Caught by its own tests, `tests/{mutant.judge}.py`."


def line(mutant: Mutant) -> str:
    """What the page says of a mutant before any run."""
    if mutant.equivalent:
        return f"- `{mutant.name}`: {mutant.bug}, in `{mutant.module}.py`. {mutant.equivalent}"
    return f"| {mutant.cell()} | {mutant.looks} |"


def result(mutant: Mutant) -> tuple[Mutant, Outcome, Outcome | None]:
    """The mutant with what its judge and the weaker test say, where that can say anything."""
    apart = mutant.module in ("cost", "products") or mutant.module.startswith("cpu/")
    if of_the_judge(mutant) or apart or mutant.equivalent:
        return mutant, judge(mutant), None
    return (
        mutant,
        judge(mutant),
        run_check((HERE / "weak.py").read_text("utf-8"), mutant),
    )


def row(mutant: Mutant, outcome: Outcome, weak: Outcome | None) -> str:
    """A line of the table, with how far off the judge found it."""
    if not mutant.judge.startswith("day"):
        return line(mutant) + "\n"
    off = "noticed" if outcome.difference is None else f"{outcome.difference:.0e}"
    weaker = {None: "not asked", "passed": "lets it pass"}.get(weak and weak.verdict, "fails")
    return f"{line(mutant)} {off} | {weaker} |\n"


def main() -> None:
    """Run everything, two at a time, and write the page; exit 1 if a bug gets through."""
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(result, catalog()))
    for mutant, outcome, _ in results:
        if outcome.verdict != ("passed" if mutant.equivalent else "caught"):
            sys.exit(f"{mutant.name}: {outcome.verdict}\n{outcome.message}")
    bugs = [r for r in results if not r[0].equivalent]
    asked = [weak.verdict for _, _, weak in bugs if weak]
    judges = sum(of_the_judge(mutant) for mutant, _, _ in bugs)
    text = INTRO.format(
        count=len(bugs),
        count_day=len(bugs) - judges,
        count_judge=judges,
        asked=len(asked),
        missed=asked.count("passed"),
    )
    for title, group in groupby(bugs, key=lambda r: heading(r[0])):
        rows = list(group)
        columns = COLUMNS if title.startswith("Day") else JUDGE_COLUMNS
        text += f"\n## {title}\n\n{caught_by(rows[0][0])}\n\n{columns}"
        text += "".join(row(*r) for r in rows)
    equivalents = [line(mutant) for mutant, _, _ in results if mutant.equivalent]
    if equivalents:
        text += f"\n## {EQUIVALENT}\n\n" + "\n".join(equivalents) + "\n"
    PAGE.write_text(text, "utf-8")
    record()


if __name__ == "__main__":
    main()
