"""What known mistakes in attention give, so that a mismatch can name its own: Day 6.

In shapes: B batch, H query heads, K KV heads, T queries, S keys, D numbers a key, V a value.
"""

import torch
from torch import nn

from nanoserve.checks.rope_slips import turn_slips
from nanoserve.layers import apply_rope
from nanoserve.signatures import Lookalikes


def mistakes(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Lookalikes:
    """Wrong mixes (B, H, T, V) of q, k and v, each made only if asked for."""
    (T, D), (K, S) = q.shape[2:], k.shape[1:3]
    groups = q.shape[1] // K

    def mix(scale=D**-0.5, hidden=S - T + 1, dim=-1, tiled=False, keys=k, values=v, low=-torch.inf):
        if tiled:
            keys, values = (t.repeat(1, groups, 1, 1) for t in (keys, values))
        else:
            keys, values = (t.repeat_interleave(groups, 1) for t in (keys, values))
        mask = torch.full((T, S), low, dtype=q.dtype).triu(hidden)
        scores = q @ keys.mT * scale + mask
        return scores.softmax(dim, dtype=torch.float32).to(values.dtype) @ values

    found = {
        "attention without the scale; scores must be divided by the root of D": lambda: mix(
            scale=1.0
        ),
        "attention with scores divided by D, not by its root": lambda: mix(scale=1 / D),
        "attention without a mask": lambda: mix(hidden=S + 1),
        "attention with a mask of -1e4, which a score can pass; minus infinity hides": lambda: mix(
            low=-1e4
        ),
        "attention that sees one key too far": lambda: mix(hidden=S - T + 2),
        "attention with the softmax over the queries": lambda: mix(dim=-2),
    }
    if groups > 1:
        found["attention with the KV heads tiled; query head h must read KV head h // (H / K)"] = (
            lambda: mix(tiled=True)
        )
    if S > T:
        found["attention that takes the queries for the first T of S positions, not the last"] = (
            lambda: mix(hidden=1)
        )
    if k.shape == v.shape:
        found["attention with k and v swapped"] = lambda: mix(keys=v, values=k)
    return found


def head_mistakes(
    attn: nn.Module, what: str, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> Lookalikes:
    """What `attend` may wrongly be handed as q, k or v, made from x (B, T, C)."""
    flat = getattr(attn, f"{what}_proj")(x)  # (B, T, heads * D)
    B, T, D = *x.shape[:2], cos.shape[-1]
    heads, mixed = flat.view(B, T, -1, D).transpose(1, 2), flat.view(B, -1, T, D)
    cut = (
        "heads cut by view(B, -1, T, D), which mixes tokens: view(B, T, -1, D) and transpose(1, 2)"
    )
    if what == "v":
        turned = "values that were turned; RoPE is for queries and keys"
        return {cut: mixed, turned: lambda: apply_rope(heads, cos, sin)}
    return {cut: lambda: apply_rope(mixed, cos, sin), **turn_slips(heads, cos, sin)}
