"""The table that closes a week: ours beside another's, from the committed bench.json.

from ratios import table

table({("the cache, a token at B 1", "hf-eager"): "a token with a cache"})
"""

import json
from pathlib import Path
from statistics import median

from bench import rows
from IPython.display import Markdown

BENCH = Path(__file__).resolve().parent / "bench.json"
NOTES = {"formula": " by formula"}  # what is said of a contestant's number
HEAD = ["| | ours | {name} | ratio | better is |", "|---|--:|--:|--:|---|"]


def table(wanted: dict, name: str = "HuggingFace", ours: str = "ours") -> Markdown:
    """A row for each of `wanted`: (title in bench.json, contestant) -> what it is called here.

    Ours is as people run it, where that was measured beside the plain model.
    """
    measured = json.loads(BENCH.read_text("utf-8"))
    held = {title: (unit, numbers) for title, unit, numbers in rows(measured)}
    lines = [line.format(name=name) for line in HEAD]
    for (title, other), what in wanted.items():
        unit, numbers = held.get(title, ("", {}))
        better = "more" if unit == "tokens/s" else "less"
        as_run = f"{ours}-fast" if f"{ours}-fast" in numbers else ours
        if other not in numbers or as_run not in numbers:
            lines.append(f"| {what} | not measured yet | | | |")
            continue
        mine, theirs = median(numbers[as_run]), median(numbers[other])
        note = NOTES.get(other, "")
        values = f"{mine:,.3g} {unit} | {theirs:,.3g} {unit}{note} | {mine / theirs:.2f}"
        lines.append(f"| {what} | {values} | {better} |")
    return Markdown("\n".join(lines))
