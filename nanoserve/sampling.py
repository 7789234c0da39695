"""From scores to a token.

Built in the book: day09. Edit there, then run book/tangle.py.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from nanoserve.params import SamplingParams


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
