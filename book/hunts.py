"""Bug hunts: which line of the code above is wrong, and what is said of every other one.

from answers import check
from exercises import line_of

check(answer, **line_of("day08"))
"""

from typing import Any

# Of a bug hunt: what the line has that is wrong, and what is said of every other line.
HUNTS = {
    "day08": (("append",), "print the prompt before and after a call"),
    "day10": (("at=",), "print what each pass is told of its token"),
    "day11": (("step_cost(", "sizes="), "which of these numbers must change with the batch?"),
    "day12": (("sent=len(ready",), "print how much was sent after each token"),
    "day13": (("seeds[",), "what is a text's must be found by the text's number"),
    "day15": (("table[:i]",), "in which order does the loop go, and what does each turn look at?"),
    "day16": (("tokens[-",), "print what the first chunk reads"),
    "day17": (("inplan.preempted",), "who is told of, and has nothing new to say?"),
    "day18": (("isnotNone", "found.get("), "what if a block is missing, and the next is there?"),
    "day22": (("/BLOCK",), "what does each line know of the padding?"),
    "day23": (("sees=",), "how many keys does a tile's second query see, and how many should it?"),
    "day24": (("*0+new",), "print where its tensors lie, `data_ptr()`, at each question"),
    "day25": (("x_ptr+b*N",), "how long is a row of each of the tensors?"),
    "day26": (("for_inrange(3)",), "print run.cached_tokens of each run"),
}


def line_of(day: str) -> dict[str, Any]:
    """The line that a day's bug hunt looks for, as a text."""
    parts, otherwise = HUNTS[day]

    def right(said: Any) -> bool:
        return any(part in str(said).replace(" ", "") for part in parts)

    return {"right": right, "otherwise": otherwise}
