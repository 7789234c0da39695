"""From scores to a token.

Built in the book: day09. Edit there, then run book/tangle.py.
"""

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

import torch

INT64 = 2**63

RANGES = {  # field: what it must be, and the test of a number
    "temperature": ("a number from 0 on", lambda v: v >= 0),
    "top_k": ("a whole number from 1 on, or 0 for all", lambda v: v >= -1),
    "top_p": ("a number over 0, up to 1", lambda v: 0 < v <= 1),
    "min_p": ("a number from 0 to 1", lambda v: 0 <= v <= 1),
    "repetition_penalty": ("a number over 0", lambda v: v > 0),
    "presence_penalty": ("a number from -2 to 2", lambda v: -2 <= v <= 2),
    "frequency_penalty": ("a number from -2 to 2", lambda v: -2 <= v <= 2),
    "seed": ("a whole number", lambda v: -INT64 <= v < INT64),
    "max_tokens": ("a whole number from 1 on", lambda v: v >= 1),
    "min_tokens": ("a whole number from 0 on", lambda v: v >= 0),
    "logprobs": ("a whole number from 0 on", lambda v: v >= 0),
}


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen, and when to stop. Names as in vLLM.

    temperature divides the scores; 0 takes the best token. top_k keeps
    the k best (0: all), top_p the best whose mass reaches p, min_p those
    with at least p times the best one's probability.
    repetition_penalty divides positive scores of tokens in the prompt
    or the output, and multiplies negative ones; presence_penalty is
    taken off each token in the output, frequency_penalty once for every
    time that it stands there. `seed` makes the draws repeatable.
    max_tokens None is what the context holds; before min_tokens no stop
    id is drawn. `logprobs` asks for that many of the likeliest tokens.
    ValueError names each bad field.
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
        wrong = wrong_params(self)
        if wrong:
            raise ValueError("; ".join(wrong))
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        object.__setattr__(self, "stop", tuple(stop))
        ids = tuple(self.stop_token_ids)
        object.__setattr__(self, "stop_token_ids", ids)


def wrong_params(params: SamplingParams) -> list[str]:
    """What is wrong with the fields, a sentence each."""
    wrong = []
    for field in fields(params):
        name, value = field.name, getattr(params, field.name)
        if name in RANGES:
            said, fits = RANGES[name]
            if value is None and "None" in str(field.type):
                continue
            kind = int if "int" in str(field.type) else Real
            number = isinstance(value, kind) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and fits(value)):
                wrong.append(f"{name} must be {said}, got {value!r}")
    least, most = params.min_tokens, params.max_tokens
    if not wrong and most is not None and least > most:
        wrong.append(f"min_tokens {least} is over max_tokens {most}")
    if not isinstance(params.ignore_eos, bool):
        said = "ignore_eos must be True or False"
        wrong.append(f"{said}, got {params.ignore_eos!r}")
    stop = params.stop
    texts = [stop] if isinstance(stop, str) else stop
    if not is_list(texts, str) or not all(texts):
        said = "stop must be texts, none of them empty"
        wrong.append(f"{said}, got {stop!r}")
    if not is_list(params.stop_token_ids, int):
        said = "stop_token_ids must be whole numbers"
        wrong.append(f"{said}, got {params.stop_token_ids!r}")
    return wrong


def is_list(values: Any, kind: type) -> bool:
    """Whether this is a list or tuple with nothing but `kind` in it."""
    return isinstance(values, list | tuple) and all(
        isinstance(v, kind) and not isinstance(v, bool) for v in values
    )


History = tuple[Sequence[int], Sequence[int]]  # prompt ids, output ids


def penalize(x: torch.Tensor, params: SamplingParams, history: History) -> torch.Tensor:
    """Make what was said before less likely, or more: (V,) -> (V,)."""
    prompt, output = history
    seen = torch.tensor([*prompt, *output], device=x.device).long().unique()
    once, times = torch.tensor(output, device=x.device).long().unique(return_counts=True)
    x = x.clone()
    x[seen] = torch.where(
        x[seen] < 0,
        x[seen] * params.repetition_penalty,
        x[seen] / params.repetition_penalty,
    )
    x[once] -= params.presence_penalty + params.frequency_penalty * times
    return x


def keep_top_k(x: torch.Tensor, k: int) -> torch.Tensor:
    """The k best scores, and what ties with the last of them: (V,)."""
    least = x.topk(min(k, x.shape[-1])).values[-1]
    return x.masked_fill(x < least, -torch.inf)


def keep_top_p(x: torch.Tensor, p: float) -> torch.Tensor:
    """The best tokens, up to the one whose mass reaches p: (V,).

    Counted from below, as in the reference: what the worst tokens hold
    together, up to 1 - p, goes. The best one always stays. Source:
    Holtzman et al. 2019, arXiv:1904.09751.
    """
    order = x.argsort()  # ascending
    mass = x[order].softmax(-1).cumsum(-1)
    gone = mass <= 1 - p
    gone[-1] = False
    return x.index_fill(0, order[gone], -torch.inf)


def keep_min_p(x: torch.Tensor, p: float) -> torch.Tensor:
    """Tokens with at least p times the best one's probability: (V,).

    Source: Nguyen et al. 2024, arXiv:2407.01082.
    """
    probabilities = x.softmax(-1)
    low = probabilities < p * probabilities.max()
    return x.masked_fill(low, -torch.inf)


def process_row(
    x: torch.Tensor,
    params: SamplingParams,
    history: History,
    eos_ids: Collection[int] = (),
) -> torch.Tensor:
    """One request's scores, -inf where a token is excluded: (V,)."""
    if params.repetition_penalty != 1 or (params.presence_penalty or params.frequency_penalty):
        x = penalize(x, params, history)
    if len(history[1]) < params.min_tokens:
        ids = [*params.stop_token_ids, *eos_ids]
        x = x.index_fill(0, torch.tensor(ids, device=x.device).long(), -torch.inf)
    if params.temperature == 0:
        best = x.argmax()  # of equal scores, the lower id
        only = torch.full_like(x, -torch.inf)
        only[best] = x[best]
        return only
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
    """Scores after penalties, min_tokens, temperature, top-k, top-p, min-p.

    Shapes: logits (N, V) -> (N, V) in float32, -inf where a token is
    excluded. `params` and `histories` have N entries; a history is the
    prompt's ids and the output's so far. min_tokens holds back the stop
    ids of its params, and `eos_ids` unless the params ignore them. Each
    row depends on itself alone. ValueError for another number of
    entries.
    """
    if not len(logits) == len(params) == len(histories):
        raise ValueError(
            f"{len(logits)} rows of scores, {len(params)} params and "
            f"{len(histories)} histories: wanted one of each for a row"
        )
    rows = [
        process_row(x, p, h, () if p.ignore_eos else eos_ids)
        for x, p, h in zip(logits.float(), params, histories, strict=True)
    ]
    return torch.stack(rows) if rows else logits.float()


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
    the token is that on which `uniform(seed, position)` falls. ValueError
    where a row has NaN, or nothing to choose from.
    """
    mass = scores.double().softmax(-1).cumsum(-1)  # (N, V)
    for row in (~mass[:, -1].isfinite()).nonzero().flatten().tolist():
        raise ValueError(f"row {row} has NaN, or no token to choose from")
    draws = map(uniform, seeds, positions)
    draws = torch.tensor([*draws], dtype=torch.float64, device=scores.device)
    at = draws * mass[:, -1]
    # The first place whose mass is over `at` has some of its own.
    return torch.searchsorted(mass, at[:, None], right=True)[:, 0]


@dataclass(frozen=True)
class Logprob:
    """The log of a token's probability, and its rank: 1 is the likeliest."""

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
