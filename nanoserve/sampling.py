"""From scores to a token.

Built in the book: day09. Edit there, then run book/tangle.py.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

import torch


def keep_top_k(x: torch.Tensor, k: int) -> torch.Tensor:
    """The k best scores, and what ties with the last of them: (V,)."""
    least = x.topk(min(k, len(x))).values[-1]
    return x.masked_fill(x < least, -torch.inf)


def keep_top_p(x: torch.Tensor, p: float) -> torch.Tensor:
    """The best tokens, up to and with the one whose mass reaches p: (V,).

    Counted from below, as in HuggingFace: the worst tokens go, as long
    as they hold no more than 1 - p together. The best one always stays.
    Source: Holtzman et al. 2019, arXiv:1904.09751.
    """
    order = x.argsort()  # the worst first
    gone = x[order].softmax(-1).cumsum(-1) <= 1 - p
    gone[-1] = False
    return x.index_fill(0, order[gone], -torch.inf)


def keep_min_p(x: torch.Tensor, p: float) -> torch.Tensor:
    """Tokens with at least p times the best one's probability: (V,).

    Source: Nguyen et al. 2024, arXiv:2407.01082.
    """
    mass = x.softmax(-1)
    return x.masked_fill(mass < p * mass.max(), -torch.inf)


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

RANGES = {  # field: what it must be, and the test of a number
    "temperature": ("a number from 0 on", lambda v: v >= 0),
    "top_k": ("a whole number from 1 on, 0 for all", lambda v: v >= -1),
    "top_p": ("a number over 0, up to 1", lambda v: 0 < v <= 1),
    "min_p": ("a number from 0 to 1", lambda v: 0 <= v <= 1),
    "repetition_penalty": (
        "a number from 1e-9 to 1e9",
        lambda v: 1e-9 <= v <= 1e9,
    ),
    "presence_penalty": ("a number from -2 to 2", lambda v: -2 <= v <= 2),
    "frequency_penalty": ("a number from -2 to 2", lambda v: -2 <= v <= 2),
    "seed": ("a whole number of 64 bits", lambda v: -INT64 <= v < INT64),
    "max_tokens": ("a whole number from 1 on", lambda v: v >= 1),
    "min_tokens": ("a whole number from 0 on", lambda v: v >= 0),
    "logprobs": ("a whole number from 0 on", lambda v: v >= 0),
}


def wrong_params(params: SamplingParams) -> list[str]:
    """What is wrong with the fields, a sentence each."""
    wrong = []
    for field in fields(params):
        name, value = field.name, getattr(params, field.name)
        may_be_none = "None" in str(field.type)
        if name not in RANGES or (value is None and may_be_none):
            continue
        said, fits = RANGES[name]
        kind = int if "int" in str(field.type) else Real
        if not (is_number(value, kind) and fits(value)):
            wrong.append(f"{name} must be {said}, got {value!r}")
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


History = tuple[Sequence[int], Sequence[int]]  # prompt ids, output ids


def counts(ids: Sequence[int], x: torch.Tensor) -> torch.Tensor:
    """How often each token of the scores x stands in ids: (V,)."""
    ids = torch.tensor(list(ids), dtype=torch.long, device=x.device)
    return ids.bincount(minlength=len(x))[: len(x)]


def penalizes(params: SamplingParams) -> bool:
    """Whether `penalize` would change anything."""
    added = params.presence_penalty, params.frequency_penalty
    return params.repetition_penalty != 1 or any(added)


def penalize(x: torch.Tensor, params: SamplingParams, history: History) -> torch.Tensor:
    """Make what was said before less likely, or more: (V,) -> (V,).

    Sources: Keskar et al. 2019, arXiv:1909.05858, for the repetition
    penalty, with the negative scores as in HuggingFace; OpenAI's API
    for the two others.
    """
    prompt, output = history
    said = counts(output, x)
    seen = counts(prompt, x) + said
    factor = params.repetition_penalty
    less = torch.where(x < 0, x * factor, x / factor)
    x = torch.where(seen > 0, less, x)
    x = x - params.frequency_penalty * said
    return x - params.presence_penalty * (said > 0)


GREEDY = 1e-5  # a temperature below is 0: vLLM's bound


def process_row(
    x: torch.Tensor,
    params: SamplingParams,
    history: History,
    stops: Collection[int],
) -> torch.Tensor:
    """One request's scores, -inf where a token is excluded: (V,)."""
    if penalizes(params):
        x = penalize(x, params, history)
    if len(history[1]) < params.min_tokens:
        held = [i for i in stops if i < len(x)]
        held = torch.tensor(held, dtype=torch.long, device=x.device)
        x = x.index_fill(0, held, -torch.inf)
    if params.temperature < GREEDY:
        others = torch.arange(len(x), device=x.device) != x.argmax()
        return x.masked_fill(others, -torch.inf)
    x = x / params.temperature
    if params.top_k > 0:
        x = keep_top_k(x, params.top_k)
    if params.top_p < 1:
        x = keep_top_p(x, params.top_p)
    if params.min_p > 0:
        x = keep_min_p(x, params.min_p)
    return x


def process(
    logits: torch.Tensor,
    params: Sequence[SamplingParams],
    histories: Sequence[History],
    eos_ids: Collection[int] = (),
) -> torch.Tensor:
    """Scores after penalties, min_tokens, temperature, and the filters.

    Shapes: logits (N, V) -> (N, V) in float32, -inf where a token is
    excluded. The filters are top-k, top-p, min-p, in this order.
    `params` and `histories` have N entries; a history is the prompt's
    ids and the output's so far. min_tokens holds back the stop ids of
    its params, and `eos_ids` unless the params ignore them. Each row
    depends on itself alone. ValueError for another number of entries.
    """
    one_each(logits, params=params, histories=histories)
    done = torch.empty_like(logits, dtype=torch.float32)
    for i, (p, history) in enumerate(zip(params, histories, strict=True)):
        stops = [*p.stop_token_ids, *(() if p.ignore_eos else eos_ids)]
        done[i] = process_row(logits[i].float(), p, history, stops)
    return done


def one_each(rows: torch.Tensor, **given: Sequence) -> None:
    """ValueError unless each of these has an entry for every row."""
    for name, values in given.items():
        if len(values) != len(rows):
            raise ValueError(f"{len(rows)} rows of scores need as many {name}, got {len(values)}")


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that belongs to this seed and position alone.

    A hash, and no generator: nothing has a state that company, a pause
    or another device could change. 53 bits, as many as a float holds.
    """
    digest = hashlib.blake2b(f"{seed} {position}".encode(), digest_size=8)
    return (int.from_bytes(digest.digest(), "big") >> 11) / 2**53


def sample(scores: torch.Tensor, seeds: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
    """A token for each row, drawn from softmax(scores): (N, V) -> (N,).

    The probabilities lie end to end on a line as long as their sum, and
    the token is that on which `uniform(seed, position)` of it falls.
    ValueError where a row has NaN or nothing to choose from, or where
    seeds or positions are more or fewer than the rows.
    """
    one_each(scores, seeds=seeds, positions=positions)
    best, ids = scores.max(-1)
    alone = (scores > -torch.inf).sum(-1) == 1
    if alone.all() and best.isfinite().all():  # NaN is the best of all
        return ids  # one token each: nothing to draw
    ends = scores.double().softmax(-1).cumsum(-1)  # (N, V)
    total = ends[:, -1:]  # (N, 1)
    if bad := total.isnan().nonzero()[:, 0].tolist():
        raise ValueError(f"row {bad[0]} has NaN, or no token to draw")
    draws = [uniform(*at) for at in zip(seeds, positions, strict=True)]
    draws = torch.tensor(draws, dtype=total.dtype, device=total.device)
    at = draws[:, None] * total  # (N, 1), below the total
    # The first token that ends past the point: never one without mass.
    return torch.searchsorted(ends, at, right=True)[:, 0]


@dataclass(frozen=True)
class Logprob:
    """The log of a token's probability, and its rank: 1 is the best."""

    logprob: float
    rank: int


def logprobs_of(logits: torch.Tensor, token: int, count: int) -> dict[int, Logprob]:
    """The chosen token's, then those of the `count` likeliest: (V,) in.

    Of the model's own logits, before any penalty or temperature.
    """
    logs = logits.float().log_softmax(-1)
    best = logs.topk(min(count, len(logs))).indices.tolist()
    return {
        i: Logprob(logs[i].item(), 1 + (logs > logs[i]).sum().item())
        for i in dict.fromkeys([token, *best])
    }
