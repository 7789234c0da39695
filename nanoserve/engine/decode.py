"""All texts that read one token attend together, not in turn.

Built in the book: day16. Edit there, then run book/tangle.py.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate

import torch
from torch.nn.functional import embedding
from torch.nn.utils.rnn import pad_sequence

from nanoserve.engine.pool import KVPool, Span, gathered


def side_by_side(reads: Sequence[torch.Tensor], K: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (N, K, S) of each text and head, and -inf behind its end.

    `reads` has each text's slots. Head h of slot s is row s * K + h of a
    layer's keys. What is hidden, (N, 1, 1, S), is to be added to scores.
    """
    slots = pad_sequence([*reads], batch_first=True, padding_value=-1)
    spare = slots < 0  # (N, S)
    slots = torch.where(spare, slots[:, :1], slots)
    heads = torch.arange(K, device=slots.device)[:, None]
    hidden = torch.zeros(spare.shape, device=slots.device)
    hidden.masked_fill_(spare, -torch.inf)
    return slots[:, None] * K + heads, hidden[:, None, None]


def one_query_each(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    rows: torch.Tensor,
    hidden: torch.Tensor,
) -> torch.Tensor:
    """What each of N texts sees with one query: (N, H, D) -> (N, H, D).

    keys and values are a layer's, (slots, K, D).
    """
    K = keys.shape[1]
    past = (embedding(rows, x.flatten(0, 1)) for x in (keys, values))
    keys, values = past  # gathered: (N, K, S, D)
    q = q.unflatten(1, (K, -1))  # (N, K, H // K, D)
    scores = q @ keys.transpose(-2, -1)  # (N, K, H // K, S)
    scores = scores * q.shape[-1] ** -0.5 + hidden
    weights = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
    return (weights @ values).flatten(1, 2)


class BatchedPool(KVPool):
    """A KVPool in which spans of one token attend together."""

    def attends(self, spans: Sequence[Span]) -> list[Callable[..., torch.Tensor]]:
        """An `attend` for each layer, as KVPool's."""
        row, sizes, reads = self.places(spans)
        parts = [*zip(accumulate(sizes), sizes, reads, strict=True)]
        chunks = [(slice(e - n, e), r) for e, n, r in parts if n > 1]
        ones = [(e - 1, r) for e, n, r in parts if n == 1]
        at = torch.tensor([e for e, _ in ones], device=row.device).long()
        table = None
        if ones:
            table = side_by_side([r for _, r in ones], self.k.shape[2])
        layers, step = range(len(self.k)), (row, chunks, at, table)
        return [partial(self.attend_sorted, i, *step) for i in layers]

    def attend_sorted(
        self,
        layer: int,
        row: torch.Tensor,
        chunks: Sequence[tuple[slice, torch.Tensor]],
        at: torch.Tensor,
        table: tuple[torch.Tensor, torch.Tensor] | None,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
    ) -> torch.Tensor:
        """Write k and v (1, K, T, D), then mix for q (1, H, T, D).

        The chunks' places in the row, with their slots, and those of
        the single tokens, `at` (N,), with their table.
        """
        keys, values = self.write(layer, row, k, v)
        mix = torch.empty_like(q)
        for place, slots in chunks:
            part = gathered(keys, values, q[:, :, place], slots)
            mix[:, :, place] = part
        if table:
            own = q[0].transpose(0, 1)[at]  # (N, H, D)
            seen = one_query_each(own, keys, values, *table)
            mix[0, :, at] = seen.transpose(0, 1)
        return mix
