"""What a request may ask of its sampling, and what is refused.

Built in the book: day09. Edit there, then run book/tangle.py.
"""

from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen, and when to stop. Names as in vLLM.

    temperature divides the scores; 0 takes the best token, and below
    1e-5 is 0. top_k keeps the k best (0 or -1: all), top_p the best
    until their mass reaches p, min_p those with at least p times the
    best one's probability. repetition_penalty divides the positive
    scores of what is in the prompt or the output and multiplies the
    negative ones; presence_penalty is taken off each token in the
    output, frequency_penalty once for every time that it is there.
    `seed` makes the draws repeatable. max_tokens None is what the
    context holds; before min_tokens no stop id is drawn. `logprobs`
    asks for that many of the likeliest tokens. ValueError names each
    bad field.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    max_tokens: int | None = 16
    min_tokens: int = 0
    stop: str | tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None

    def __post_init__(self):
        if wrong := wrong_params(self):
            raise ValueError("; ".join(wrong))
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        object.__setattr__(self, "stop", tuple(stop))
        ids = tuple(self.stop_token_ids)
        object.__setattr__(self, "stop_token_ids", ids)


FINITE = torch.finfo(torch.float32).max
INT64 = 2**63
KINDS = {int: "a whole number", Real: "a number"}

RANGES = {  # field: its kind, which ones, and the test of one
    "temperature": (Real, "from 0 on", lambda v: v >= 0),
    "top_k": (int, "from 1 on, 0 for all", lambda v: v >= -1),
    "top_p": (Real, "over 0, up to 1", lambda v: 0 < v <= 1),
    "min_p": (Real, "from 0 to 1", lambda v: 0 <= v <= 1),
    "repetition_penalty": (
        Real,
        "from 1e-9 to 1e9",
        lambda v: 1e-9 <= v <= 1e9,
    ),
    "presence_penalty": (Real, "from -2 to 2", lambda v: -2 <= v <= 2),
    "frequency_penalty": (Real, "from -2 to 2", lambda v: -2 <= v <= 2),
    "seed": (int, "of 64 bits", lambda v: -INT64 <= v < INT64),
    "max_tokens": (int, "from 1 on", lambda v: v >= 1),
    "min_tokens": (int, "from 0 on", lambda v: v >= 0),
    "logprobs": (int, "from 0 on", lambda v: v >= 0),
}

MAY_BE_NONE = ("seed", "max_tokens", "logprobs")


def wrong_params(params: SamplingParams) -> list[str]:
    """What is wrong with the fields, a sentence each."""
    wrong = []
    for name, (kind, said, fits) in RANGES.items():
        value = getattr(params, name)
        if value is None and name in MAY_BE_NONE:
            continue
        if not (is_number(value, kind) and fits(value)):
            wanted = f"{KINDS[kind]} {said}"
            wrong.append(f"{name} must be {wanted}, got {value!r}")
    least, most = params.min_tokens, params.max_tokens
    if not wrong and most is not None and least > most:
        wrong.append(f"min_tokens {least} is over max_tokens {most}")
    if not isinstance(params.ignore_eos, bool):
        said = "ignore_eos must be True or False"
        wrong.append(f"{said}, got {params.ignore_eos!r}")
    texts = [params.stop] if isinstance(params.stop, str) else params.stop
    if not all_of(texts, lambda v: isinstance(v, str) and v):
        said = "stop must be texts, none of them empty"
        wrong.append(f"{said}, got {params.stop!r}")
    ids = params.stop_token_ids
    if not all_of(ids, lambda v: is_number(v, int) and v >= 0):
        said = "stop_token_ids must be whole numbers from 0 on"
        wrong.append(f"{said}, got {ids!r}")
    return wrong


def is_number(value: Any, kind: type) -> bool:
    """Whether this is a finite number of this kind; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return kind is int or -FINITE <= value <= FINITE


def all_of(values: Any, fits: Any) -> bool:
    """Whether this is a list or tuple of values that all fit."""
    return isinstance(values, list | tuple) and all(map(fits, values))
