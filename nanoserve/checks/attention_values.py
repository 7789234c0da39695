"""What values must not do to causal_attention: Day 6.

Huge scores, zeros, NaN; what a query may not see; tensors that are filled anew between calls.
In shapes: B batch, H query heads, K KV heads, T queries, S keys, D numbers a key or value.
"""

from itertools import product

import torch

from nanoserve.checks.attention import BARS, draw, theirs_on
from nanoserve.checks.common import BF16, F32, KIND, attempt, holds
from nanoserve.comparison import Scoreboard
from nanoserve.layers import causal_attention


@torch.inference_mode()
def check_values(board: Scoreboard) -> None:
    """The future; extreme scores; NaN; the same tensors with new values in them."""
    check_future()
    check_extremes(board)
    check_nan()
    check_refilled(board)


def check_extremes(board: Scoreboard) -> None:
    """Huge scores: finite, and within the values. Scores of 0: a mean of the values."""
    seeded = torch.Generator().manual_seed(1)
    for dtype in (F32, BF16):
        q, k, v = draw(seeded, (2, 7, 12), (6, 2, 8, 8), dtype)
        for size in (0.0, 1e3, 1e8, 1e15):
            for a, b in ((q * size, k), (q, k * size), (-q * size, k)):
                name = f"scores times {size:g}, {KIND[dtype]}"
                mix = attempt(name, causal_attention, a, b, v)
                holds(
                    f"{name}: the mix must be finite, however large the scores",
                    mix.isfinite().all().item(),
                    "a softmax that takes e to the score itself overflows at 89",
                )
                most, bound = mix.abs().max().item(), v.abs().max().item()
                holds(
                    f"{name}: a mix with weights that add up to 1 lies within the values",
                    most <= bound * 1.01,
                    f"it reaches {most:.3g}, and the values {bound:.3g}",
                )
        sums = v.repeat_interleave(3, 1).float().cumsum(2)[:, :, 5:]
        means = (sums / torch.arange(6, 13)[:, None]).to(dtype)
        mix = attempt("all scores alike", causal_attention, q * 0, k, v)
        name = "all scores alike: the mean of the values so far"
        board.compare(None, f"function, {KIND[dtype]}", name, mix, means, **BARS[dtype])


def check_future() -> None:
    """What a query may not see can be any number, and moves no bit."""
    seeded = torch.Generator().manual_seed(2)
    for dtype, (T, S) in product((F32, BF16), ((9, 9), (1, 6), (5, 12), (30, 30))):
        q, k, v = draw(seeded, (2, T, S), (6, 2, 8, 8), dtype)
        for m in range(S):
            what = f"{T} queries, {S} keys, {KIND[dtype]}: keys and values changed from {m} on"
            first = max(0, m - (S - T))  # query t stands at S - T + t
            found = moved(what, q, k, v, m)
            wanted = list(range(first, T))
            holds(
                f"{what}: queries {wanted}, no others, must give another mix",
                found == wanted,
                f"queries {found} do",
            )
            # No mask but infinity hides scores like these.
            early = [t for t in moved(what, q * 1e12, k, v, m) if t < first]
            holds(
                f"{what}, scores of 1e12: queries before that must not move",
                not early,
                f"queries {early} do: is the mask finite?",
            )


def moved(what: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: int) -> list[int]:
    """The queries whose mix moves with the keys and values from position m on."""
    late_k, late_v = k.clone(), v.clone()
    late_k[:, :, m:] = 50 - late_k[:, :, m:]
    late_v[:, :, m:] += 100
    mix = attempt(what, causal_attention, q, k, v)
    now = attempt(what, causal_attention, q, late_k, late_v)
    holds(
        f"{what}: the mix must have q's shape {[*q.shape]}, as D = V here",
        mix.shape == now.shape == q.shape,
        f"it is {[*mix.shape]}",
    )
    return (now != mix).any(-1).any(1).any(0).nonzero().flatten().tolist()


def check_nan() -> None:
    """NaN stays NaN for every query that sees it, and stays out of other rows and groups.

    From k or v it may reach earlier queries too, as it does in HuggingFace's attention: 0 times
    NaN is NaN. So a cache must not hand out places that it has not filled.
    """
    seeded = torch.Generator().manual_seed(4)
    for i, what in enumerate(("q, head 4, query 2", "k, KV head 1, key 3", "v, KV head 1, key 3")):
        qkv = draw(seeded, (2, 5, 7), (6, 2, 8, 8), F32)
        qkv[i][1, 4 if i == 0 else 1, 2 if i == 0 else 3] = torch.nan
        may = theirs_on(*qkv)[0].isnan().any(-1)  # (B, H, T)
        must = may.clone()
        if i:
            must[:, :, 0] = False  # query 0 stands at position 2, before the key
        seen = attempt(f"NaN in {what}", causal_attention, *qkv).isnan().any(-1)
        for astray, how in ((must & ~seen, "lost"), (seen & ~may, "spread")):
            holds(
                f"NaN in row 1 of {what}: what has seen it must be NaN, and nothing else",
                not astray.any().item(),
                f"it is {how} at [row, head, query] {astray.nonzero().tolist()!s:.200}",
            )


def check_refilled(board: Scoreboard) -> None:
    """The same three tensors with other values in them, as a loop or a cache reuses them."""
    seeded = torch.Generator().manual_seed(5)
    qkv = draw(seeded, (2, 4, 9), (6, 2, 8, 8), F32)
    for turn in ("first", "second"):
        name = f"the same tensors, {turn} time"
        mix = attempt(name, causal_attention, *qkv)
        board.compare(None, "function, fp32", name, mix, theirs_on(*qkv)[0])
        for t in qkv:
            t.copy_(t.flip(2) - 0.5)
