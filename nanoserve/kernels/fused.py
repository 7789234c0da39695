"""A Llama's pass over one packed row, in fewer and larger operations.

Built in the book: day24. Edit there, then run book/tangle.py.
"""

from collections.abc import Callable

import torch
from torch.nn.functional import linear

from nanoserve.kernels.mlp import silu_mul
from nanoserve.kernels.norm import rms_norm
from nanoserve.kernels.rope import rope_write
from nanoserve.layers import Linear, rope_table
from nanoserve.model import Llama


def fuse(*layers: Linear) -> torch.Tensor:
    """One weight of several: (sum of their outs, in).

    The layers keep theirs, as parts of it: nothing is held twice.
    """
    weight = torch.cat([layer.weight for layer in layers])
    sizes = [len(layer.weight) for layer in layers]
    for layer, part in zip(layers, weight.split(sizes), strict=True):
        layer.weight.data = part
    return weight


class FusedLlama:
    """The weights of `model`, which stays what it is, for kernels.

    With RoPE's table for `max_len` places.
    """

    def __init__(self, model: Llama, max_len: int):
        self.model, config = model, model.config
        self.eps, self.half = config.rms_norm_eps, config.head_dim // 2
        self.qkv = [fuse(b.attn.q_proj, b.attn.k_proj, b.attn.v_proj) for b in model.blocks]
        self.gate_up = [fuse(b.mlp.gate_proj, b.mlp.up_proj) for b in model.blocks]
        tied = config.tie_word_embeddings
        self.head = model.embed.weight if tied else model.lm_head.weight
        places = torch.arange(max_len, device=model.embed.weight.device)
        cos, sin = rope_table(config, places)
        halves = (t[:, : self.half].contiguous() for t in (cos, sin))
        self.cos, self.sin = halves

    def stream(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        attend: Callable[..., torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The residual stream behind all blocks but for the last sum.

        Its two parts are (T, C); ids, positions and slots are (T,).
        keys and values are the pool, (layers, slots, K, D), and
        `attend(q, keys, values)` mixes in one layer of it: (T, H, D) ->
        (T, H * D).
        """
        x, delta = self.model.embed(ids), None
        turned = self.cos, self.sin, positions, slots
        for i, block in enumerate(self.model.blocks):
            k, v = keys[i], values[i]  # one layer of the pool
            o, down = block.attn.o_proj.weight, block.mlp.down_proj.weight
            h = rms_norm(x, block.attn_norm.weight, self.eps, delta)
            q = rope_write(linear(h, self.qkv[i]), *turned, k, v)
            delta = linear(attend(q, k, v), o)
            h = rms_norm(x, block.mlp_norm.weight, self.eps, delta)
            delta = linear(silu_mul(linear(h, self.gate_up[i])), down)
        return x, delta

    def scores_of(
        self,
        x: torch.Tensor,
        delta: torch.Tensor,
        last: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Scores (N, V) of what follows the places `last`, all if None."""
        if last is not None:
            x, delta = x[last], delta[last]
        h = rms_norm(x, self.model.norm.weight, self.eps, delta)
        return linear(h, self.head)

    def scores(self, *row, last: torch.Tensor | None = None, **rest) -> torch.Tensor:
        """Both: `row` and `rest` are what `stream` takes."""
        return self.scores_of(*self.stream(*row, **rest), last)
