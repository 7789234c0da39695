"""causal_attention against HuggingFace's eager attention on made-up q, k and v: Day 6.

In shapes: B batch, H query heads, K KV heads, T queries, S keys, D numbers a key, V a value.
"""

from collections.abc import Iterator
from itertools import product
from types import SimpleNamespace

import torch

from nanoserve.checks.attention_mistakes import mistakes
from nanoserve.checks.common import BF16, F32, F64, KIND, attempt, holds, must_raise
from nanoserve.comparison import Scoreboard
from nanoserve.layers import causal_attention
from nanoserve.reference import modeling_llama

BARS = {
    F32: {},
    F64: {"rtol": 1e-12, "atol": 1e-12},
    # A score that rounds the other way in bf16 moves its whole row.
    BF16: {"rtol": 2e-2, "atol": 2e-2},
}
HEADS = (  # H, K, D, V
    (4, 4, 8, 8), (6, 2, 10, 10), (5, 1, 16, 16), (8, 2, 6, 9), (12, 3, 5, 1),
    (32, 8, 64, 64), (9, 3, 64, 64), (8, 1, 4, 4), (14, 2, 6, 6), (1, 1, 8, 8),
)  # fmt: skip
SIZES = (  # B, T, S
    (1, 1, 1), (2, 2, 2), (2, 5, 5), (3, 1, 9),
    (3, 4, 11), (9, 2, 3), (2, 24, 24), (1, 33, 40),
)  # fmt: skip


LONG = (  # B, T, S and H, K, D, V: past any window, table or mask that is made beforehand
    ((1, 1100, 1100), (2, 1, 8, 5)), ((2, 3, 9001), (2, 1, 8, 5)), ((1, 1, 40000), (2, 1, 8, 5)),
    ((1, 4200, 4200), (1, 1, 4, 4)), ((1, 2, 4300), (1, 1, 4, 4)),
)  # fmt: skip


@torch.inference_mode()
def check_attention(board: Scoreboard) -> None:
    """Made-up q, k and v of all shapes, dtypes and layouts; long ones; what is refused."""
    check_shapes(board)
    check_long(board)
    check_refusals()


def causal_mask(T: int, S: int, dtype: torch.dtype) -> torch.Tensor:
    """HuggingFace's mask (1, 1, T, S), for the last T of S positions."""
    lowest = torch.full((T, S), torch.finfo(dtype).min, dtype=dtype)
    return lowest.triu(S - T + 1)[None, None]


def theirs_on(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple:
    """HuggingFace's mix (B, H, T, V) and weights (B, H, T, S)."""
    mask = causal_mask(q.shape[2], k.shape[2], q.dtype)
    module = SimpleNamespace(num_key_value_groups=q.shape[1] // k.shape[1], training=False)
    scale = q.shape[-1] ** -0.5
    mix, weights = modeling_llama.eager_attention_forward(module, q, k, v, mask, scale)
    return mix.transpose(1, 2), weights


def unit_values(k: torch.Tensor) -> torch.Tensor:
    """Unit vectors for values (B, K, S, S): the mix of them is the weights."""
    return torch.eye(k.shape[2], dtype=k.dtype).expand(*k.shape[:3], -1)


def draw(seeded: torch.Generator, sizes: tuple, heads: tuple, dtype: torch.dtype) -> list:
    """Seeded q (B, H, T, D), k (B, K, S, D), v (B, K, S, V), laid out as projections leave them."""
    (B, T, S), (H, K, D, V) = sizes, heads
    shapes = ((B, T, H, D), (B, S, K, D), (B, S, K, V))
    return [torch.randn(shape, generator=seeded).transpose(1, 2).to(dtype) for shape in shapes]


def layouts(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Iterator[tuple]:
    """The same q, k and v as drawn, contiguous, and with k and v cut from a roomy cache."""
    yield "projected", q, k, v
    yield "contiguous", q.contiguous(), k.contiguous(), v.contiguous()
    roomy = (torch.cat([t, t.flip(2)], 2)[:, :, : t.shape[2]] for t in (k, v))
    yield "from a cache", q, *roomy


def check_mix(board: Scoreboard, name: str, *qkv: torch.Tensor) -> None:
    """Mix and weights against HuggingFace's; the future has weight 0; twice is the same."""
    q, k, _ = qkv
    dtype, T, S = q.dtype, q.shape[2], k.shape[2]
    part, name = f"function, {KIND[dtype]}", f"{name}, {KIND[dtype]}"
    wanted, weights = theirs_on(*qkv)
    mix = attempt(name, causal_attention, *qkv)
    seen = attempt(name, causal_attention, q, k, unit_values(k))
    like = mistakes(*qkv), mistakes(q, k, unit_values(k))
    board.compare(None, part, f"{name}, weights", seen, weights, like[1], **BARS[dtype])
    board.compare(None, part, f"{name}, mix", mix, wanted, like[0], **BARS[dtype])
    later = seen.triu(S - T + 1).amax().item()
    holds(
        f"{name}: keys later than the query must get weight 0, exactly",
        later == 0,
        f"one gets {later:.2g}",
    )
    if dtype == BF16 and T >= 24:
        same = (mix == wanted).float().mean().item()
        holds(
            f"{name}: more than 80% of the mix must be HuggingFace's to the bit (softmax in "
            "float32, cast to v's dtype, then the product)",
            same > 0.8,
            f"{same:.0%} are",
        )
    again = attempt(name, causal_attention, *qkv)
    holds(f"{name}: a second call must give the same bits", torch.equal(mix, again))


def check_shapes(board: Scoreboard) -> None:
    """Every choice of heads in every size, layout and dtype; small, large and huge scores."""
    seeded = torch.Generator().manual_seed(0)
    for heads, sizes, dtype in product(HEADS, SIZES, (F32, F64, BF16)):
        what = f"H, K, D, V {heads}, B, T, S {sizes}"
        for layout, q, k, v in layouts(*draw(seeded, sizes, heads, dtype)):
            check_mix(board, f"{what}, {layout}", q, k, v)
        check_mix(board, f"{what}, q x 0.01, v x 30", q * 0.01, k, 30 * v)
        if dtype != BF16:
            check_mix(board, f"{what}, q x 3", q * 3, k, v)
        if dtype == F64:  # scores in the thousands
            check_mix(board, f"{what}, q x 2000", q * 2000, k, v)
    q, k, v = draw(seeded, (1, 6, 9), (6, 3, 4, 4), F32)
    check_mix(board, "expanded", *(t.expand(3, -1, -1, -1) for t in (q, k, v)))


def check_long(board: Scoreboard) -> None:
    """More queries and keys than any window or table could be made for."""
    seeded = torch.Generator().manual_seed(0)
    for sizes, heads in LONG:
        q, k, v = draw(seeded, sizes, heads, F32)
        name = f"B, T, S {sizes}"
        mix = attempt(name, causal_attention, q, k, v)
        board.compare(None, "function, fp32", name, mix, theirs_on(q, k, v)[0], mistakes(q, k, v))


def check_refusals() -> None:
    """Shapes that do not fit are a ValueError."""
    q, k = torch.randn(2, 6, 5, 8), torch.randn(2, 3, 5, 8)
    bad = {
        "4 KV heads for 6": (q, torch.randn(2, 4, 5, 8)),
        "more KV heads": (q, torch.randn(2, 12, 5, 8)),
        "no KV head": (q, k[:, :0]),
        "another D": (q, k[..., :4]),
        "fewer keys than queries": (q, k[:, :, :4]),
        "another batch": (q, k[:1]),
        "k of another batch": (q, k[:1], k),
        "one row of queries": (q[:1], k),
        "keys of three dimensions": (q, k[0]),
        "queries of three dimensions": (q[0], k),
        "five dimensions": (q[None], k[None]),
        "v of another batch": (q, k, k[:1]),
        "v of other heads": (q, k, k[:, :1]),
        "v of fewer keys": (q, k, k[:, :, :4]),
        "v of more keys": (q, k, torch.randn(2, 3, 6, 8)),
        "v of three dimensions": (q, k, k[0]),
    }
    for what, (queries, keys, *values) in bad.items():
        shapes = f"q {[*queries.shape]}, k {[*keys.shape]} ({what})"
        must_raise(
            ValueError, shapes, causal_attention, queries, keys, values[0] if values else keys
        )
