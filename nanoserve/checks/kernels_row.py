"""Texts in one row and a poisoned pool, to be attended to by the kernel and by others: Day 23."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch

from nanoserve.checks.common import agree, attempt
from nanoserve.checks.kernels_memory import stored, unsaid
from nanoserve.comparison import Scoreboard
from nanoserve.engine.pool import KVPool, Span, slots_of
from nanoserve.kernels.attention import Reading, paged_attention, reading
from nanoserve.layers import causal_attention
from nanoserve.reference import modeling_llama

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def huggingfaces(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Their eager attention: q (1, H, T, D), the last T of S; k, v (1, K, S, D) -> (T, H * D)."""
    (_, H, T, D), (_, K, S, _) = q.shape, k.shape
    module = SimpleNamespace(num_key_value_groups=H // K, training=False)
    mask = q.new_full((T, S), -torch.inf).triu(S - T + 1)[None, None]
    mix, _ = modeling_llama.eager_attention_forward(module, q, k, v, mask, D**-0.5)
    return mix[0].flatten(1)


def drawn(spans: Sequence[tuple[int, int]], K: int, G: int, D: int, seed: int) -> list:
    """Of each text q (1, H, new, D), k and v (1, K, before + new, D)."""
    seeded = torch.Generator().manual_seed(seed)
    return [
        [
            torch.randn(1, heads, n, D, generator=seeded)
            for heads, n in ((K * G, new), (K, new + before), (K, new + before))
        ]
        for new, before in spans
    ]


def exactly(texts: Sequence) -> torch.Tensor:
    """Every query's mix in float64, (T, H * D), where the kernels run."""
    wide = ([x.double() for x in text] for text in texts)
    mixes = [causal_attention(*text)[0].transpose(0, 1).flatten(1) for text in wide]
    return torch.cat(mixes).to(DEVICE)


class Row:
    """Texts in one row, their keys in shuffled blocks of a pool that is NaN wherever nobody wrote.

    `texts` has q (1, H, new, D), k and v (1, K, S, D) of each, in float32 on the CPU; the pool is
    of another dtype if asked. A table goes on, past its text's blocks, with one that nobody owns,
    and tables are in another order than the texts.
    """

    def __init__(self, texts: Sequence, size: int, dtype: torch.dtype = torch.float32):
        self.size, (_, self.K, _, D) = size, texts[0][1].shape
        self.G = texts[0][0].shape[1] // self.K
        self.spans = [(q.shape[2], k.shape[2] - q.shape[2]) for q, k, _ in texts]
        counts = [-(-k.shape[2] // size) for _, k, _ in texts]
        shape = SimpleNamespace(num_hidden_layers=1, num_key_value_heads=self.K, head_dim=D)
        self.pool = KVPool(shape, sum(counts) + 1, size, dtype, DEVICE)
        self.keys, self.values = self.pool.k[0], self.pool.v[0]
        self.keys.fill_(torch.nan), self.values.fill_(torch.nan)
        shuffle = torch.Generator().manual_seed(sum(counts))
        *free, nobodys = torch.randperm(sum(counts) + 1, generator=shuffle).tolist()
        self.order = torch.randperm(len(texts), generator=shuffle).tolist()
        wide = torch.full((len(texts), max(counts) + 5), nobodys, dtype=torch.int32)
        tables = wide[:, : max(counts) + 2]  # a part of what the engine has
        spans = []
        for i, ((new, before), count) in enumerate(zip(self.spans, counts, strict=True)):
            blocks, free = free[:count], free[count:]
            tables[self.order[i], :count] = torch.tensor(blocks)
            spans.append(Span(blocks, before, new))
            slots = slots_of(blocks, before, size).to(DEVICE)
            for held, x in ((self.keys, texts[i][1]), (self.values, texts[i][2])):
                held[slots] = x[0, :, :before].transpose(0, 1).to(held)
        self.tables = wide.to(DEVICE)[:, : tables.shape[1]]
        q, k, v = (
            torch.cat([text[i][:, :, -text[0].shape[2] :] for text in texts], 2).to(DEVICE, dtype)
            for i in range(3)
        )
        self.q = q[0].transpose(0, 1).contiguous()  # (T, H, D)
        self.pools = self.pool.attends(spans)[0](q, k, v)[0].transpose(0, 1).flatten(1)
        self.theirs = torch.cat([huggingfaces(*text) for text in texts])

    def reading(self, texts: Sequence[int] | None = None) -> Reading:
        """Where the texts of these numbers lie, in this order; by default all."""
        texts = range(len(self.spans)) if texts is None else texts
        spans = [(*self.spans[i], self.order[i]) for i in texts]
        return attempt(f"reading of spans {spans}", reading, self.tables, spans, self.G)

    def mix(self, which: Reading, q: torch.Tensor, *cut: int) -> torch.Tensor:
        """Ours, (T, H * D), cut into parts as asked."""
        what = f"paged_attention of {[*q.shape]}, blocks of {self.size}, (parts, each, tile) {cut}"
        given = q, self.keys, self.values, which, self.size, *cut
        with unsaid():
            mine = attempt(what, paged_attention, *given)
        agree(f"{what}: shape", tuple(mine.shape), (len(q), q[0].numel()))
        return mine

    def hold(self, board: Scoreboard, name: str, *cut: int, ref: Path | None = None) -> None:
        """Ours against HuggingFace's and the pool's, on what a checkpoint `ref` has, or made."""
        what = f"{name}, {self.K} x {self.G} heads of {self.q.shape[2]}, (parts, each, tile) {cut}"
        mine = self.mix(self.reading(), self.q, *cut)
        stored(what, mine)
        board.compare(ref, "the mix, HuggingFace's", what, mine.cpu(), self.theirs)
        board.compare(ref, "the mix, the pool's", what, mine, self.pools)
