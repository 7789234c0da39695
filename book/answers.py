"""What an exercise says of a reader's answer: right, or why not yet.

    from answers import check, check_function

    check(answer, right, wrong={...}, otherwise="a sentence")
    check_function(function, cases)
    check_function(function, inputs, like=reference)

Each prints a line that begins with "right" or "not yet" (check_function: more lines for the cases
that fail), raises nothing that the reader could meet, and never prints the answer.

`right` is the answer itself, computed in the cell where that can be, so that the cell does not give
it away. Its type says how the reader's is taken; nothing that means the same is refused:

    right           taken too
    14, 0.5         "14", "14 GiB", "131,072", a tensor or array of one value
    True            "yes", "true", 1
    "ACD"           letters in order: "A, C, D", "dca", ["a", "C", "D"], {"A", "C", "D"}
    "values"        " Values"
    {3, 4}          [4, 3], (3, 4), "3, 4", "3 and 4", 3 where there is one
    {"x", "y"}      "X; y", ["x", "y"]
    (1, 5)          order counts: [1, 5], "1, 5", "(1, 5)"
    {"a": 1}        the same keys, each value as above; it says how many are right
    a function      of the reader's answer as it stands: whether it is right

A number must be equal; `within=0.01` takes one that is off by a hundredth of `right`.

`wrong` gives a sentence to answers that are worth one: a dict of (wrong answer: sentence), keys in
any form above; where `right` is a set or letters, a single member is a key too, said where the
reader put that member in wrongly or left it out. Or a function of the reader's answer that gives a
sentence or None. `otherwise` is said to every other wrong answer. An answer of None, or with None
in every part, is not yet given.

`cases` of a function are (inputs, wanted) or (inputs, wanted, what is special about it), `inputs`
the tuple of its arguments; `wanted` may be an exception class, which it must then raise. With
`like=`, a function that is right, `cases` are tuples of inputs alone. Tensors must agree in shape,
dtype and values (1e-5 + 1e-5 |wanted|) and may not be changed in place.
"""

from typing import Any

from cases import check_function
from forms import Refused, taken

__all__ = ["check", "check_function", "verdict"]

UNANSWERED = "put your answer in and run this cell again"


def check(answer: Any, right: Any, wrong: Any = None, otherwise: str = "", within=0.0) -> None:
    """Print "right", or "not yet" and why; see above for what is taken."""
    print(verdict(answer, right, wrong, otherwise, within))


def verdict(answer: Any, right: Any, wrong: Any = None, otherwise: str = "", within=0.0) -> str:
    """What `check` prints."""
    if is_none(answer):
        return f"not yet: {UNANSWERED}"
    try:
        mine = answer if callable(right) else taken(answer, right)
        if right(answer) if callable(right) else same(mine, right, within):
            return "right"
    except Refused as problem:
        return f"not yet: {problem}"
    except Exception as error:  # the exercise's function met an answer of an odd kind
        return f"not yet: an answer like {answer!r:.60} cannot be judged ({error!r:.100})"
    why = sentence(answer, mine, right, wrong, within) or otherwise or partly(mine, right)
    return f"not yet: {why}" if why else "not yet"


def is_none(answer: Any) -> bool:
    """Whether nothing is answered yet: None, or None in every part."""
    parts = answer.values() if isinstance(answer, dict) else answer
    if isinstance(answer, dict | list | tuple) and parts:
        return all(part is None for part in parts)
    return answer is None or answer is ...


def same(mine: Any, right: Any, within: float) -> bool:
    """Whether an answer, taken as `right` is, is the right one."""
    if isinstance(right, dict):
        return all(agrees(mine[key], wanted, within) for key, wanted in right.items())
    if isinstance(right, list | tuple):
        return all(same(m, r, within) for m, r in zip(mine, right, strict=True))
    if isinstance(right, int | float) and not isinstance(right, bool):
        return abs(mine - right) <= within * abs(right)
    return mine == taken(right, right)


def agrees(answer: Any, right: Any, within: float) -> bool:
    """Whether an answer in any form is the right one."""
    try:
        return not is_none(answer) and same(taken(answer, right), right, within)
    except Refused:
        return False


def sentence(answer: Any, mine: Any, right: Any, wrong: Any, within: float) -> str:
    """What the exercise has to say of this wrong answer."""
    if callable(wrong):
        try:
            return wrong(answer) or ""
        except Exception:  # it was written for answers of the right kind
            return ""
    if callable(right):
        return next((text for key, text in (wrong or {}).items() if key == answer), "")
    keys = {key: taken(key, right) for key in wrong or {}}
    for key, form in keys.items():
        if form == mine or (isinstance(form, int | float) and same(mine, form, within)):
            return wrong[key]
    if isinstance(mine, set):
        astray = mine ^ taken(right, right)
        return next((wrong[k] for k, form in keys.items() if len(form) == 1 and form <= astray), "")
    return ""


def partly(mine: Any, right: Any) -> str:
    """How near a wrong answer is, without saying what is right."""
    if isinstance(right, dict):
        good = sum(agrees(mine[key], wanted, 0) for key, wanted in right.items())
        return f"{good} of {len(right)} are right"
    if isinstance(mine, set):
        missing, extra = taken(right, right) - mine, mine - taken(right, right)
        if not missing:
            return "all of them are there, and one or more do not belong"
        return "some are missing, some do not belong" if extra else "right so far, but not all"
    return ""
