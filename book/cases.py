"""A reader's function on cases: `check_function` of book/answers.py, which documents it."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch

SHOWN = 3  # failing cases, before it becomes a wall


def check_function(function: Callable, cases: list, like: Callable | None = None) -> None:
    """Print "right", or "not yet" and what the reader's function does with each failing case."""
    name, failed = function.__name__, []
    for case in cases:
        inputs, wanted, special = (case, None, "") if like else (*case, "")[:3]
        if like:
            wanted = like(*deepcopy(inputs))
        try:
            why = failure(function, inputs, wanted)
        except NotImplementedError:
            print(f"not yet: {name} is yours to write")
            return
        if why:
            call = f"{name}({', '.join(map(brief, inputs))})"
            failed.append(f"  {call}{f', {special}' if special else ''}: {why}")
    if not failed:
        print(f"right: {len(cases)} cases")
        return
    if len(failed) == len(cases) and all(": gives None" in line for line in failed):
        print(f"not yet: {name} returns nothing:\nlet it end with `return`")  # 46 fit a telephone
        return
    more = [f"  and {len(failed) - SHOWN} more"] if len(failed) > SHOWN else []
    print("\n".join([f"not yet: {len(failed)} of {len(cases)} cases fail", *failed[:SHOWN], *more]))


def failure(function: Callable, inputs: tuple, wanted: Any) -> str:
    """What is wrong with the function's answer to `inputs`; empty where nothing is."""
    given, refuses = deepcopy(inputs), isinstance(wanted, type) and issubclass(wanted, Exception)
    try:
        mine = function(*given)
    except NotImplementedError:
        raise
    except Exception as error:
        if refuses and isinstance(error, wanted):
            return ""
        kind = type(error).__name__
        return f"raises {kind}: {error!s:.200}" + (f", not {wanted.__name__}" if refuses else "")
    if refuses:
        return f"gives {brief(mine)}, and should raise {wanted.__name__}"
    if not all(map(alike, given, inputs)):
        return "changes what it is given, and should make something new"
    return "" if alike(mine, wanted) else apart(mine, wanted)


def alike(mine: Any, wanted: Any) -> bool:
    """Whether two values agree: tensors within 1e-5, all else equal."""
    if isinstance(wanted, torch.Tensor):
        return (
            isinstance(mine, torch.Tensor)
            and (mine.shape, mine.dtype) == (wanted.shape, wanted.dtype)
            and torch.allclose(mine, wanted, rtol=1e-5, atol=1e-5, equal_nan=True)
        )
    if isinstance(wanted, list | tuple):
        many = isinstance(mine, list | tuple) and len(mine) == len(wanted)
        return many and all(map(alike, mine, wanted))
    if isinstance(wanted, float) and isinstance(mine, int | float):
        # First of all equal: an infinity less itself is NaN.
        return mine == wanted or abs(mine - wanted) <= 1e-5 + 1e-5 * abs(wanted)
    return not isinstance(mine, torch.Tensor) and mine == wanted


def apart(mine: Any, wanted: Any) -> str:
    """How two values differ, in a sentence."""
    tensors = isinstance(mine, torch.Tensor) and isinstance(wanted, torch.Tensor)
    if tensors and mine.shape != wanted.shape:
        return f"gives shape {tuple(mine.shape)}, and should give {tuple(wanted.shape)}"
    if tensors and mine.dtype != wanted.dtype:
        return f"gives {mine.dtype}, and should give {wanted.dtype}"
    if tensors and mine.numel() > 6:
        off = ~torch.isclose(mine, wanted, 1e-5, 1e-5, equal_nan=True)
        place = tuple(off.nonzero()[0].tolist())
        values = f"{mine[place].item():.6g}, and should be {wanted[place].item():.6g}"
        return f"{int(off.sum())} of {off.numel()} values differ, first at {place}: is {values}"
    if brief(mine) == brief(wanted):  # only the kinds tell them apart
        kinds = type(mine).__name__, type(wanted).__name__
        return f"gives {brief(mine)} as {kinds[0]}, and should give {kinds[1]}"
    return f"gives {brief(mine)}, and should give {brief(wanted)}"


def brief(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, torch.Tensor):
        if value.numel() > 6:
            return f"<tensor {tuple(value.shape)}>"
        value = value.tolist()
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
