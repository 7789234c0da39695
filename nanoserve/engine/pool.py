"""Keys and values of many texts, in one pool of blocks.

Built in the book: day14. Edit there, then run book/tangle.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from nanoserve.config import ModelConfig
from nanoserve.layers import causal_attention


def slots_of(table: Sequence[int], end: int, block_size: int) -> torch.Tensor:
    """The slots of a text's first `end` tokens: (end,), on the CPU.

    `table` has the ids of the text's blocks, in order.
    """
    place = torch.arange(end, device="cpu")
    block = torch.tensor(table, device="cpu")[place // block_size]
    return block * block_size + place % block_size


@dataclass(frozen=True)
class Span:
    """New tokens of one text, in a row that other texts share.

    `table` has the ids of its blocks, in order; `computed` of its tokens
    are in the pool, and the next `new` of them stand in the row.
    """

    table: Sequence[int]
    computed: int
    new: int


def check_spans(spans: Sequence[Span], num_blocks: int, block_size: int) -> None:
    """ValueError unless every table has blocks for its span's tokens."""
    if not spans:
        raise ValueError("no spans: a row has the tokens of one or more")
    for i, span in enumerate(spans):
        if span.computed < 0 or span.new < 1:
            raise ValueError(
                f"span {i} has {span.computed} tokens in the pool and "
                f"{span.new} new: wanted 0 or more, and 1 or more"
            )
        known = range(num_blocks)
        foreign = [block for block in span.table if block not in known]
        if foreign:
            raise ValueError(
                f"span {i} names blocks {foreign}, and the pool has "
                f"{num_blocks}, from 0 to {num_blocks - 1}"
            )
        end, count = span.computed + span.new, len(span.table)
        if count * block_size < end:
            raise ValueError(
                f"span {i} ends at token {end}, and its {count} blocks of "
                f"{block_size} hold {count * block_size}: give it more"
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


def gathered(
    keys: torch.Tensor,
    values: torch.Tensor,
    q: torch.Tensor,
    slots: torch.Tensor,
) -> torch.Tensor:
    """A span's mix (1, H, new, D) of what lies in `slots`, (S,).

    keys and values are a layer's, (slots, K, D); q is (1, H, new, D).
    """
    past = keys[slots], values[slots]  # in one piece now: (S, K, D)
    return causal_attention(q, *(x.transpose(0, 1)[None] for x in past))


class KVPool:
    """Keys and values in `num_blocks` blocks of `block_size` tokens.

    k and v are (layers, slots, K, D), a token in each slot. Whose a
    block is and how much of it is written, the caller knows, and says
    with every row. ValueError for what does not fit.
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

    def attends(self, spans: Sequence[Span]) -> list[Callable[..., torch.Tensor]]:
        """An `attend` for each layer, for one row (1, T) of these spans.

        A token sees its own text, from the first token to itself.
        """
        step = self.places(spans)
        return [partial(self.attend, i, *step) for i in range(len(self.k))]

    def places(self, spans: Sequence[Span]) -> tuple:
        """What `attend` needs to know of a step: row, sizes and reads.

        `row` (T,) has the slot of each new token, span after span.
        `sizes` has each span's `new`, and `reads` of each the slots of
        all its tokens, (computed + new,), all on the pool's device.
        ValueError where a span has too few blocks, or a block that is
        not there, and for two new tokens in one slot. Nothing is
        written.
        """
        check_spans(spans, self.num_blocks, self.block_size)
        reads, writes, device = [], [], self.k.device
        for span in spans:
            end = span.computed + span.new
            slots = slots_of(span.table, end, self.block_size).to(device)
            reads.append(slots)  # (S,)
            writes.append(slots[span.computed :])  # (new,)
        row = torch.cat(writes)  # (T,)
        if len(row.unique()) < len(row):
            raise ValueError("two new tokens would share a slot")
        return row, [len(part) for part in writes], reads

    def attend(
        self,
        layer: int,
        row: torch.Tensor,
        sizes: list[int],
        reads: list[torch.Tensor],
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
    ) -> torch.Tensor:
        """Write k and v (1, K, T, D), then mix for q (1, H, T, D)."""
        keys, values = self.write(layer, row, k, v)
        parts = zip(q.split(sizes, 2), reads, strict=True)
        mixes = [gathered(keys, values, *part) for part in parts]
        return torch.cat(mixes, 2)  # (1, H, T, D)

    def write(
        self,
        layer: int,
        row: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put k and v (1, K, T, D) into the slots `row` of a layer.

        All of the layer's keys and values: (slots, K, D) each.
        """
        keys, values = self.k[layer], self.v[layer]  # (slots, K, D)
        check_row(keys, len(row), k, v)
        keys[row] = k[0].transpose(0, 1).detach()  # (T, K, D)
        values[row] = v[0].transpose(0, 1).detach()
        return keys, values

    @property
    def nbytes(self) -> int:
        """Bytes of memory, whoever has the blocks."""
        return self.k.nbytes + self.v.nbytes
