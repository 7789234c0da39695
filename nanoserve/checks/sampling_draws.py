"""Draws, seeds and logprobs, each held against a few lines of plain Python: Day 9."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from unittest.mock import patch

import torch

from nanoserve import sampling
from nanoserve.checks.common import BF16, agree, attempt, holds, must_raise
from nanoserve.checks.sampling_cases import awkward_rows
from nanoserve.comparison import Scoreboard
from nanoserve.sampling import SamplingParams, logprobs_of, process, sample, uniform

NEVER, LAST = float("-inf"), 1 - 2**-53  # LAST: the largest number below 1


def oracle(row: Sequence[float], point: float) -> int:
    """The token on which `point` of the line falls: Python's floats, added by hand."""
    top = max(row)
    masses = [math.exp(score - top) for score in row]
    left = point * math.fsum(masses)
    for token, mass in enumerate(masses):
        if left < mass:
            return token
        left -= mass
    raise AssertionError(f"the oracle fell off the line at {point}")


def intervals(row: Sequence[float]) -> list[tuple[int, float, float]]:
    """Where on [0, 1] each token's probability begins and ends: the law that a draw must have."""
    top = max(row)
    masses = [math.exp(score - top) for score in row]
    total, found, end = math.fsum(masses), [], 0.0
    for token, mass in enumerate(masses):
        found.append((token, end, end + mass / total))
        end += mass / total
    return found


def forced(scores: torch.Tensor, points: Sequence[float]) -> list[int]:
    """What `sample` draws from one row (V,) at each of these points of [0, 1)."""
    with patch.object(sampling, "uniform", lambda seed, position: points[seed]):
        many = scores.expand(len(points), -1).clone()
        drawn = attempt("sample", sample, many, range(len(points)), [0] * len(points))
    whole = drawn.dtype == torch.int64 and drawn.shape == (len(points),)
    said = f"of {len(points)} rows it gave {drawn.dtype}, {tuple(drawn.shape)}"
    holds("sample must give (N,) whole numbers, torch.int64", whole, said)
    most = drawn.max().item()
    holds(f"sample must give ids of {len(scores)} scores", most < len(scores), f"it gave {most}")
    return drawn.tolist()


def check_draws() -> None:
    """Every token is drawn on its own part of the line and nowhere else, to 1e-9."""
    for number, scores in enumerate(awkward_rows()):
        row = scores.tolist()
        points, wanted = [], []
        for token, start, end in intervals(row):
            edge = min(1e-9, (end - start) / 4)
            for point in (start + edge, (start + end) / 2, end - edge):
                if start < point < end and end - start > 1e-12:
                    points.append(point)
                    wanted.append(token)
        mine = forced(scores, points)
        off = [i for i, (a, b) in enumerate(zip(mine, wanted, strict=True)) if a != b]
        if off:
            raise AssertionError(
                f"row {number}: at {points[off[0]]:.12f} of the line token {mine[off[0]]} was "
                f"drawn, wanted {wanted[off[0]]}; so at {len(off)} of {len(points)} points"
            )
        ends = forced(scores, [0.0, LAST])
        last = max(i for i, x in enumerate(row) if x > NEVER)
        agree(f"row {number}: token at the beginning of the line", ends[0], oracle(row, 0.0))
        holds(f"row {number}: the last point must draw a token with mass", row[ends[1]] > NEVER)
        if row[last] > max(row) - 20:
            agree(f"row {number}: token at the far end", ends[1], last)
        tokens = [oracle(row, uniform(seed, 3)) for seed in range(40)]
        many = scores.expand(40, -1).clone()
        agree(f"row {number}: 40 seeds", sample(many, range(40), [3] * 40).tolist(), tokens)
    check_certain()
    check_elsewhere()
    check_draw_refusals()


def check_elsewhere() -> None:
    """New tensors are made where the scores are, whatever device torch would choose."""
    rows = awkward_rows()[:2]
    cold = SamplingParams(temperature=0, frequency_penalty=1, min_tokens=5, stop_token_ids=(3,))
    given = rows, [cold, SamplingParams(top_p=0.9, top_k=9, min_p=0.1)], [([1], [2])] * 2

    def chosen() -> list[int]:
        return sample(process(*given), [1, 2], [0, 0]).tolist()

    wanted = attempt("process and sample", chosen)
    with torch.device("meta"):
        what = "process and sample, where torch's default device is not that of the scores"
        agree(what, attempt(what, chosen), wanted)


def check_certain() -> None:
    """Rows in which one token is left, as greedy ones: alone, and beside rows that are drawn."""
    only = torch.full((3, 7), NEVER)
    only[range(3), [4, 0, 6]] = torch.tensor([-50.0, 3.0, 0.0])
    drawn = attempt("sample", sample, only, [1, 2, 3], [0, 5, 9])
    agree("rows with one token left", drawn.tolist(), [4, 0, 6])
    agree("rows with one token left, their ids' dtype", drawn.dtype, torch.int64)
    rows = torch.zeros(4, 7)
    rows[0] = rows[2] = only[0]
    mixed = attempt("sample", sample, rows, [1, 2, 3, 4], [0] * 4).tolist()
    agree("rows with one token left, beside others", mixed[::2], [4, 4])
    agree("the rows beside them", mixed[1::2], sample(rows[1::2], [2, 4], [0] * 2).tolist())
    for spoilt in (math.nan, math.inf):
        only[1, 0] = spoilt
        said = must_raise(ValueError, f"{spoilt} alone in a row", sample, only, [1] * 3, [0] * 3)
        holds(f"the refusal of {spoilt} must name the row, 1", "1" in said, said)


def check_draw_refusals() -> None:
    """NaN, nothing to choose from, and other numbers of rows, seeds and positions."""
    good = torch.zeros(3, 7)
    for what, spoilt in (("NaN", math.nan), ("inf", math.inf), ("only -inf", NEVER)):
        bad = good.clone()
        bad[1] = spoilt if spoilt == NEVER else torch.tensor([0, 0, spoilt, 0, 0, 0, 0])
        said = must_raise(ValueError, f"a row with {what}", sample, bad, [1] * 3, [0] * 3)
        holds(f"the refusal of {what} must name the row, 1", "1" in said, said)
    for seeds, positions in (([1], [0] * 3), ([1] * 3, [0]), ([1] * 4, [0] * 4)):
        must_raise(ValueError, f"{len(seeds)} seeds, {len(positions)} positions", sample,
                   good, seeds, positions)  # fmt: skip


def check_seeds() -> None:
    """A draw belongs to (seed, position), whatever else is drawn; and the draws are uniform."""
    rows = torch.zeros(5, 4096)
    alone = [sample(rows[:1], [seed], [at]).item() for seed in (7, -3) for at in range(30)]
    holds("positions must differ in their draws", len({*alone[:30]}) > 20)
    holds("seeds must differ in their draws", alone[:30] != alone[30:])
    state = torch.get_rng_state()
    for at in reversed(range(30)):  # after a pause, in another order and row, in company
        torch.rand(at)
        drawn = sample(rows, [99, 7, at, -3, 7], [at, at, 5, at, 0]).tolist()
        agree(f"position {at} in company", (drawn[1], drawn[3]), (alone[at], alone[30 + at]))
        agree(f"position 0 beside position {at}", drawn[4], alone[0])
    torch.set_rng_state(state)
    sample(rows, range(5), range(5))
    holds("no global generator may be used", torch.equal(state, torch.get_rng_state()))
    grid = [[uniform(seed, at) for at in range(64)] for seed in range(-32, 32)]
    flat = sorted(u for row in grid for u in row)
    holds("a draw must be in [0, 1)", flat[0] >= 0 and flat[-1] < 1)
    holds("4,096 draws must all differ", len(set(flat)) == 4096)
    holds("draws must be even", max(abs(u - i / 4096) for i, u in enumerate(flat)) < 0.03)
    holds("draws must be finer than 1 in 2**40", any(u * 2**40 % 1 for u in flat))
    table = torch.tensor(grid) - 0.5
    for a, b, what in (
        (table[1:], table[:-1], "seeds"),
        (table[:, 1:], table[:, :-1], "positions"),
    ):
        holds(f"neighbouring {what} must be independent", abs((a * b).mean().item() * 12) < 0.08)
    for a, b in (((1, 11), (11, 1)), ((0, 2**32), (0, 0)), ((2**40, 1), (0, 1)), ((5, 1), (-5, 1))):
        holds(f"seed and position {a} must draw otherwise than {b}", uniform(*a) != uniform(*b))


def check_logprobs(board: Scoreboard, ref: SimpleNamespace, logits: torch.Tensor) -> None:
    """Of rows (N, V) of HuggingFace's scores: the log_softmax, and ranks counted by hand."""
    for number, row in enumerate([*logits[:4], *awkward_rows()[:6]]):
        logs, best = row.log_softmax(-1), row.topk(20).indices.tolist()
        for token in (best[0], best[5], row.argmin().item()):
            found = [attempt("logprobs_of", logprobs_of, row, token, n) for n in (0, 1, 20)]
            given = type(found[0]).__name__
            holds("logprobs_of must give a dict", given == "dict", f"it gave {given}")
            agree("asked for none: the chosen token alone", list(found[0]), [token])
            agree(
                "ids asked for",
                list(found[1]),
                list(dict.fromkeys([token, *row.topk(1).indices.tolist()])),
            )
            agree("ids asked for", len(found[2]), 20 + (token not in best))
            agree(
                "the chosen token, whatever is asked", {f[token] for f in found}, {found[0][token]}
            )
            scores = row.tolist()
            ranks = [1 + sum(s > scores[i] for s in scores) for i in found[2]]
            agree("ranks", [one.rank for one in found[2].values()], ranks)
            mine = torch.tensor([one.logprob for one in found[2].values()])
            name = f"logprobs of row {number}, token {token}"
            board.compare(ref, "logprobs", name, mine, logs[list(found[2])])
    half = logits[0, :9].to(BF16)
    more = logprobs_of(half, 3, 50)
    agree("more asked for than there are", sorted(more), list(range(9)))
    agree("logprobs of bf16 scores", more, logprobs_of(half.float(), 3, 50))
