"""Keys and values of many texts, in one pool of blocks.

Built in the book: day14. Edit there, then run book/tangle.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from nanoserve.config import ModelConfig
from nanoserve.layers import causal_attention


@dataclass(frozen=True)
class Span:
    """New tokens of one text, in a row that other texts share.

    `table` has the ids of the text's blocks, in order. `computed` is how
    many of its tokens have their keys and values in the pool, `new` how
    many stand in the row. How many tokens of it are known, is no matter
    of the pool's.
    """

    table: Sequence[int]
    computed: int
    new: int


def check_spans(spans: Sequence[Span], num_blocks: int, block_size: int) -> None:
    """ValueError unless every table has blocks for its span's tokens."""
    if not spans:
        raise ValueError("no spans: a row has the tokens of one or more")
    for i, span in enumerate(spans):
        table, known = list(span.table), range(num_blocks)
        if span.computed < 0 or span.new < 1:
            raise ValueError(
                f"span {i} has {span.computed} tokens in the pool and "
                f"{span.new} new: wanted 0 or more, and 1 or more"
            )
        if foreign := [block for block in table if block not in known]:
            raise ValueError(
                f"span {i} names blocks {foreign}, and the pool has "
                f"{num_blocks}, from 0 to {num_blocks - 1}"
            )
        end, room = span.computed + span.new, len(table) * block_size
        if room < end:
            raise ValueError(
                f"span {i} ends at token {end}, and its {len(table)} "
                f"blocks of {block_size} hold {room}: allocate more first"
            )


def check_row(held: torch.Tensor, T: int, k: torch.Tensor, v: torch.Tensor) -> None:
    """ValueError unless k and v (1, K, T, D) are the spans' tokens.

    `held` is a layer's part of the pool, (slots, K, D).
    """
    _, K, D = held.shape
    kind = held.dtype, held.device
    for new in (k, v):
        if new.shape != (1, K, T, D) or (new.dtype, new.device) != kind:
            raise ValueError(
                f"keys or values {[*new.shape]} in {new.dtype} on "
                f"{new.device}, wanted {[1, K, T, D]} in {kind[0]} on "
                f"{kind[1]}: one row, as long as its spans together, and "
                "a pool of the model's config, dtype and device"
            )


class KVPool:
    """Keys and values in `num_blocks` blocks of `block_size` tokens.

    k and v are (layers, slots, K, D): a slot holds one token, and a
    block is `block_size` slots in a row. Which blocks are whose, and how
    many tokens are in them, is known to the caller alone, who says it
    with every row: the pool has no state but the numbers. ValueError for
    what does not fit.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_blocks: int,
        block_size: int = 16,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ):
        if num_blocks < 1 or block_size < 1:
            asked = f"num_blocks {num_blocks} and block_size {block_size}"
            raise ValueError(f"{asked} must both be 1 or more")
        layers, K = config.num_hidden_layers, config.num_key_value_heads
        shape = (layers, num_blocks * block_size, K, config.head_dim)
        # Tensors made in inference mode could not be written to outside.
        with torch.inference_mode(False):
            self.k = torch.zeros(shape, dtype=dtype, device=device)
            self.v = torch.zeros_like(self.k)
        self.num_blocks, self.block_size = num_blocks, block_size

    def slots(self, table: Sequence[int], end: int) -> torch.Tensor:
        """The slots of a text's first `end` tokens: (end,), on the CPU."""
        at = torch.arange(end, device="cpu")
        block = torch.tensor(table, device="cpu")[at // self.block_size]
        return block * self.block_size + at % self.block_size

    def attends(self, spans: Sequence[Span]) -> list[Callable[..., torch.Tensor]]:
        """An `attend` for each layer, for one row (1, T) of these spans.

        A token sees its own text up to itself: what of it is in the
        pool, and what is new. T is the sum of `new`.
        """
        check_spans(spans, self.num_blocks, self.block_size)
        reads = [self.slots(s.table, s.computed + s.new) for s in spans]
        parts = zip(reads, spans, strict=True)
        writes = torch.cat([r[span.computed :] for r, span in parts])
        if len(writes.unique()) < len(writes):
            raise ValueError("two new tokens would be written to one slot")
        device, sizes = self.k.device, [span.new for span in spans]
        reads, writes = [r.to(device) for r in reads], writes.to(device)
        step = sizes, writes, reads
        return [partial(self.attend, i, *step) for i in range(len(self.k))]

    def attend(
        self,
        layer: int,
        sizes: list[int],
        writes: torch.Tensor,
        reads: list[torch.Tensor],
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
    ) -> torch.Tensor:
        """Write k and v (1, K, T, D), then mix for q (1, H, T, D)."""
        keys, values = self.k[layer], self.v[layer]  # (slots, K, D)
        check_row(keys, len(writes), k, v)
        keys[writes] = k[0].transpose(0, 1).detach()  # (T, K, D)
        values[writes] = v[0].transpose(0, 1).detach()
        mixes = []
        for one, read in zip(q.split(sizes, 2), reads, strict=True):
            past = (held[read].transpose(0, 1) for held in (keys, values))
            mixes.append(causal_attention(one, *(t[None] for t in past)))
        return torch.cat(mixes, 2)  # (1, H, T, D)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, whoever has the blocks."""
        return self.k.nbytes + self.v.nbytes
