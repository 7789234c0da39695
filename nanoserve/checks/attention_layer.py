"""causal_attention and Attention in one layer of a checkpoint, as a cache will use them: Day 6.

In shapes: B batch, T time, C hidden_size, D head_dim, H query heads.
"""

import torch
from torch import nn

from nanoserve.checks.attention import BARS, theirs_on, unit_values
from nanoserve.checks.attention_mistakes import mistakes
from nanoserve.checks.attention_module import LOOSE
from nanoserve.checks.common import F32, KIND, agree, attempt, holds
from nanoserve.comparison import Scoreboard
from nanoserve.layers import causal_attention
from nanoserve.reference import Reference


@torch.inference_mode()
def check_heads(board: Scoreboard, ref: Reference, name: str) -> None:
    """Weights (B, H, T, T) and mix (B, H, T, D) of HuggingFace's own q, k and v, head by head."""
    q, k, v = (ref.outputs[f"{name}.{what}"] for what in "qkv")
    kind, bar = KIND[q.dtype], BARS[q.dtype]
    # With unit vectors for values, the mix is the weights.
    units = unit_values(k)
    for what, values, theirs in (
        ("weights", units, ref.outputs[f"{name}.weights"]),
        ("mix", v, theirs_on(q, k, v)[0]),
    ):
        mine = attempt(f"{name}.{what}", causal_attention, q, k, values)
        known = mistakes(q, k, values)
        board.compare(ref, f"{what}, {kind}", f"{name}.{what}", mine, theirs, known, **bar)


@torch.inference_mode()
def check_layer(
    board: Scoreboard,
    ref: Reference,
    name: str,
    attn: nn.Module,
    cos: torch.Tensor,
    sin: torch.Tensor,
) -> None:
    """What a cache relies on, in one layer: the seam, last rows alone, pieces, no future."""
    given = ref.inputs[name], cos, sin  # (B, T, C), twice (B, T, D)
    check_seam(board, ref, name, attn, *given)
    check_last_rows(board, ref, name)
    check_pieces(board, ref, name, attn, *given)
    check_late(name, attn, *given)


def check_seam(
    board: Scoreboard, ref: Reference, name: str, attn: nn.Module, *given: torch.Tensor
) -> None:
    """Without attend, with it by place and by name: called once, and its mix is what counts."""
    calls = []

    def double(*qkv: torch.Tensor) -> torch.Tensor:
        calls.append(qkv)
        return 2 * causal_attention(*qkv)

    outputs = (
        attempt(name, attn, *given),
        attempt(name, attn, *given, double) / 2,
        attempt(name, attn, *given, attend=double) / 2,
    )
    for out in outputs:
        dtype = given[0].dtype
        board.compare(ref, f"output, {KIND[dtype]}", name, out, **BARS[dtype])
    agree(f"{name}, called twice with an attend: how often that was called", len(calls), 2)


def check_last_rows(board: Scoreboard, ref: Reference, name: str) -> None:
    """The last queries alone, with all keys, as a cache has them."""
    q, k, v = (ref.outputs[f"{name}.{what}"] for what in "qkv")
    whole, part = theirs_on(q, k, v)[0], f"last rows, {KIND[q.dtype]}"
    for T in (1, 2, 7):
        few = q[:, :, -T:], k, v
        what = f"{name}, the last {T} queries alone, with all keys"
        last = attempt(what, causal_attention, *few)
        board.compare(ref, part, what, last, whole[:, :, -T:], mistakes(*few), **BARS[q.dtype])


def check_pieces(
    board: Scoreboard, ref: Reference, name: str, attn: nn.Module, *given: torch.Tensor
) -> None:
    """The prompt in three pieces, with a small cache for attend."""
    past = []

    def cached(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        past.append((k, v))
        keys, values = (torch.cat(pieces, 2) for pieces in zip(*past, strict=True))
        return causal_attention(q, keys, values)

    outputs = []
    for piece in (slice(0, 5), slice(5, 6), slice(6, None)):
        rows = (t[:, piece] for t in given)
        outputs.append(attempt(f"{name}, the prompt in pieces", attn, *rows, cached))
    dtype = given[0].dtype
    bar = LOOSE if dtype == F32 else BARS[dtype]
    board.compare(ref, f"in pieces, {KIND[dtype]}", name, torch.cat(outputs, 1), **bar)


def check_late(name: str, attn: nn.Module, x: torch.Tensor, *tables: torch.Tensor) -> None:
    """Another last token moves the last row, and no bit of those before it."""
    late = x.clone()
    late[:, -1] += 10
    before = attempt(name, attn, x, *tables)
    after = attempt(name, attn, late, *tables)
    moved, last = (after != before).any(-1).any(0).nonzero().flatten().tolist(), x.shape[1] - 1
    holds(
        f"{name}, the last token changed: its row must move, and no bit of those before",
        moved == [last],
        f"of rows 0 to {last} these moved: {moved}" + ", the mask is off" * (moved != []),
    )
