"""Writes book/bugs.md from a run of all planted bugs: python tests/mutants/page.py"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from mutants.catalog import Mutant, catalog  # noqa: E402
from mutants.run import BOOK, Outcome, comparison_cell, run_check  # noqa: E402

PAGE = BOOK / "bugs.md"
INTRO = """\
# The bugs this book catches

"It matches HuggingFace to 1e-5" is worth as much as the bugs it would notice. So we planted
{count} of them, one at a time, each a small edit that a person could really make, and ran the
comparison cell of the day that builds the piece. All {count} make it fail. A cell compares every
layer of two checkpoints, and calls the day's checks in `nanoserve/checks/` for what these cannot
show: odd sizes, other dtypes, far positions, files that must be refused.

The last column asks what a weaker test would have said: HuggingFace's own initial weights (all
gains 1, projections near 0), a head of 8 channels, one row of 8 tokens, the last hidden state at
1e-5. It is a common way to test a from-scratch Llama, and it lets {missed} of {asked} pass.
The bugs in the judge itself, `reference.py`, are not asked of it: it has no such part.

"Off by" is the first difference that the cell reports, against the bar of that check: 1e-5, less
in float64 and for weights, which must be equal. Some checks have tiny or huge inputs on purpose, so
a text may show less of a bug. It is nan where a result is NaN, and "noticed" where there is no
difference to measure, such as an error that was not raised. The tables are written by
`tests/mutants/page.py` from a run, and `make test` runs every row's verdict again; the other
columns are of the day this page was written.
"""


def result(mutant: Mutant) -> tuple[Mutant, Outcome, Outcome | None]:
    """The mutant with what its day's cell and the weaker test say, where that can say anything."""
    outcome = run_check(comparison_cell(mutant.day), mutant)
    if mutant.module == "reference":
        return mutant, outcome, None
    return mutant, outcome, run_check((HERE / "weak.py").read_text("utf-8"), mutant)


def off_by(outcome: Outcome) -> str:
    """How far off the day's cell found it."""
    return "noticed" if outcome.difference is None else f"{outcome.difference:.0e}"


def row(mutant: Mutant, outcome: Outcome, weak: Outcome | None) -> str:
    """A line of the table."""
    weaker = {None: "not asked", "passed": "lets it pass"}.get(weak and weak.verdict, "fails")
    cells = (f"`{mutant.name}`: {mutant.bug}", mutant.looks, off_by(outcome), weaker)
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run everything, two at a time, and write the page; exit 1 if a bug gets through."""
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(result, catalog()))
    for mutant, outcome, _ in results:
        if outcome.verdict != "caught":
            sys.exit(f"{mutant.name}: {outcome.verdict}\n{outcome.message}")
    asked = [weak.verdict for _, _, weak in results if weak]
    missed = asked.count("passed")
    text = INTRO.format(count=len(results), asked=len(asked), missed=missed)
    places = sorted({(mutant.day, mutant.module) for mutant, _, _ in results})
    for day, module in places:
        text += f"\n## Day {int(day[3:])}, in `{module}.py`\n\n"
        text += f"Caught by the comparison cell of [Day {int(day[3:])}]({day}.ipynb).\n\n"
        text += "| bug | what it looks like | off by | weaker test |\n|---|---|---|---|\n"
        here = [r for r in results if (r[0].day, r[0].module) == (day, module)]
        text += "".join(row(*r) + "\n" for r in here)
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
