"""The tables that close a week look for rows and contestants that bench.py gives, by name."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parent.parent / "book"
# In a process of its own: bench imports torch's timers, and these want the distutils that others
# may have replaced. Parts that the committed file may lack are put in its place.
TITLES = """
import json
from pathlib import Path
import bench, bench_engine, bench_tokens

one = {"token": [1.0], "anonymous": [1.0], "rate": [1.0], "equal": [1.0], "share": [1.0]}
one |= {"seconds": [1.0], **{str(n): [1.0] for n in bench_tokens.TEXTS}}
each = lambda names: dict.fromkeys(names, one)
measured = json.loads(Path("bench.json").read_text("utf-8")) | {
    "cache": {"step": each(bench_tokens.STEPS), "memory": each(("ours", "formula"))},
    "batch": each(("ours", "hf-eager")),
    "engine": {"mix": each(bench_engine.CONTESTANTS), "python": each(("ours",)),
               "chat": each(("cached", "plain"))},
}
print(json.dumps({title: [*numbers] for title, _, numbers in bench.rows(measured)}))
"""


def asked(page: str) -> list[tuple[str, str]]:
    """The titles, each with each contestant, that a page's tables show."""
    found = []

    def table(wanted: dict, name: str = "", ours: str = "ours") -> None:
        found.extend((title, who) for title, other in wanted for who in (other, ours))

    here = types.ModuleType("ratios")
    here.table = table
    cells = json.loads((BOOK / f"{page}.ipynb").read_text("utf-8"))["cells"]
    sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    names, kept = {}, sys.modules.get("ratios")
    sys.modules["ratios"] = here
    try:
        for source in sources:
            if "table(" in source:
                exec(source, names)
    finally:
        del sys.modules["ratios"]
        if kept:
            sys.modules["ratios"] = kept
    return found


@pytest.fixture(scope="module")
def given() -> dict[str, list[str]]:
    """The rows of bench.py: title -> contestants."""
    command = [sys.executable, "-c", TITLES]
    told = subprocess.run(command, cwd=BOOK, capture_output=True, text=True, check=True)
    return json.loads(told.stdout)


@pytest.mark.parametrize(("page", "count"), [("week2", 20), ("week3", 8), ("week4", 4)])
def test_every_row_of_the_tables_is_measured_by_a_part(page, count, given):
    wanted = asked(page)
    missing = [(title, who) for title, who in wanted if who not in given.get(title, ())]
    assert len(wanted) == count and not missing
