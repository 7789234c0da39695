"""Plain torch in the place of the kernels, so that what drives them can be tried often: Day 24."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch.nn.functional import silu

from nanoserve.kernels.attention import Reading
from nanoserve.layers import apply_rope, causal_attention

HERE = "nanoserve.kernels"


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, delta: torch.Tensor | None = None
) -> torch.Tensor:
    """Day 3's; x takes delta in."""
    if delta is not None:
        x += delta
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


def rope_write(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> torch.Tensor:
    """Day 4's, of a packed row: q (T, H, D); k and v to their slots."""
    K, D = keys.shape[1:]
    q, k, v = qkv.view(len(qkv), -1, D).split([qkv.shape[1] // D - 2 * K, K, K], 1)
    both = [torch.cat([t[positions]] * 2, -1) for t in (cos, sin)]  # (T, D)
    q, k = (apply_rope(x.transpose(0, 1)[None], *both)[0].transpose(0, 1) for x in (q, k))
    keys[slots], values[slots] = k, v
    return q.contiguous()


def silu_mul(both: torch.Tensor) -> torch.Tensor:
    """Day 5's gate and up, side by side."""
    gate, up = both.chunk(2, -1)
    return silu(gate) * up


def paged_attention(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    reading: Reading,
    size: int,
    *cut: int,
) -> torch.Tensor:
    """Day 6's, one span after another; how keys are cut is all one."""
    out = torch.empty_like(q)
    for span in reading.tiles[:, 0].unique().tolist():
        first, new, computed, row = reading.spans[:, span].tolist()
        place = torch.arange(computed + new)
        slots = reading.tables[row, place // size].long() * size + place % size
        own = slice(first, first + new)
        inputs = (x.transpose(0, 1)[None] for x in (q[own], keys[slots], values[slots]))
        out[own] = causal_attention(*inputs)[0].transpose(0, 1)
    return out.flatten(1)


def choose(
    scores: torch.Tensor, law: torch.Tensor, rows: torch.Tensor, newest: torch.Tensor
) -> torch.Tensor:
    """Day 9's draw at a point, or the best one."""
    heat, point = law[:, : len(scores), None]
    wide = scores / torch.where(heat > 0, heat, 1.0).float()
    mass = (wide - wide.max(-1, keepdim=True).values).exp().double().cumsum(-1)
    drawn = (mass <= point * mass[:, -1:]).sum(-1).clamp(max=scores.shape[1] - 1)
    out = torch.where(heat[:, 0] > 0, drawn, scores.argmax(-1))
    newest[rows.long()] = out
    return out


@contextmanager
def plain_kernels() -> Iterator[None]:
    """What drives kernels drives these for a while, and takes few texts for many."""
    places = {
        "fused": (rms_norm, rope_write, silu_mul),
        "graphs": (paged_attention, choose),
        "reads": (paged_attention,),
        "runner": (choose,),
    }
    with ExitStack() as stack:
        for module, pieces in places.items():
            for piece in pieces:
                stack.enter_context(patch(f"{HERE}.{module}.{piece.__name__}", piece))
        stack.enter_context(patch(f"{HERE}.graphs.FEW", 0))
        yield
