"""Steps with prompts in them: recorded too, where they are short.

Of few tokens the card has done everything before the host has launched all kernels. So a step of up
to 1,024 tokens is padded to one of SIZES, as decode is on Day 24, and played. How many texts there
are, and who reads a prompt, is told; a tile more than they need is the last one again.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from nanoserve.engine.ahead import PENDING
from nanoserve.engine.pool import KVPool
from nanoserve.kernels.attention import Reading, paged_attention, reading
from nanoserve.kernels.fused import FusedLlama
from nanoserve.kernels.graphs import Rows, captured

SIZES = (16, 32, 64, 128, 256, 384, 512, 768, 1024)  # tokens of the steps that are recorded
NO_TABLES = torch.empty(0, 0, dtype=torch.int32)  # the host cuts spans into tiles without them


def told_in(memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a step is told, as parts of `memory`, (6, N) in int64.

    Of N tokens at most: id, place and row of each, (3, N); and the spans (4, N) and the tiles
    (N, 2) of their texts in int32, as attention reads them.
    """
    spans = memory[3:5].view(torch.int32).view(4, -1)
    return memory[:3], spans, memory[5].view(torch.int32).view(-1, 2)


class ReadGraphs:
    """The residual stream of prompts, chunks and decode in one packed row."""

    def __init__(self, model: FusedLlama, pool: KVPool, rows: Rows):
        self.model, self.pool, self.rows = model, pool, rows
        config = model.model.config
        self.G = config.num_attention_heads // config.num_key_value_heads
        self.queries = max(1, 64 // self.G)  # of a tile, in what is recorded
        # What a step is told, in one piece of memory that stays.
        self.step_input = torch.zeros(6, SIZES[-1], dtype=torch.int64, device=pool.k.device)
        self.graphs: dict[int, tuple] = {}

    def stream(
        self, tokens: Sequence[tuple[int, int, int]], spans: list[tuple[int, int, int]]
    ) -> Sequence[torch.Tensor]:
        """As FusedLlama.stream gives it, for `tokens` and more; only until the next call.

        Of a token: its id, its place, its text's row. A PENDING id is the row's newest. Of a text:
        how many tokens are here, how many came before them, its row.
        """
        cut = reading(NO_TABLES, spans, self.G)
        T, size = len(tokens), next((n for n in SIZES if len(tokens) <= n), None)
        told = self.told(tokens, cut, max(T, SIZES[-1]))
        if size is None:
            memory = told.to(self.step_input.device, non_blocking=True)
            return self.step(memory, T, len(cut.tiles), cut.queries, padded=False)
        self.step_input.copy_(told, non_blocking=True)
        if not self.graphs:  # by the interpreter, which has none
            return self.padded(size)()
        graph, *found = self.graphs[size]
        graph.replay()
        return found

    def told(self, tokens: Sequence, cut: Reading, room: int) -> torch.Tensor:
        """For the card, with room for so many tokens: those that are left are nobody's."""
        pinned = self.step_input.is_cuda
        memory = torch.zeros(6, room, dtype=torch.int64, pin_memory=pinned)
        row, spans, tiles = told_in(memory)
        row[2] = self.rows.nobody
        row[:, : len(tokens)] = torch.tensor(tokens).T
        spans[:, : cut.spans.shape[1]] = cut.spans
        tiles[:] = cut.tiles[-1]
        tiles[: len(cut.tiles)] = cut.tiles
        return memory

    def padded(self, size: int) -> Callable:
        """A step of `size` tokens, with as many tiles as its texts may ever need."""
        tiles = min(size, -(-size // self.queries) + self.rows.nobody)
        return partial(self.step, self.step_input, size, tiles, self.queries, padded=True)

    def step(
        self, memory: torch.Tensor, T: int, tiles: int, queries: int, padded: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The stream of the first T tokens."""
        rows, pool, size = self.rows, self.pool, self.pool.block_size
        row, spans, all_tiles = told_in(memory)
        ids, places, owners = row[:, :T]
        ids = torch.where(ids == PENDING, rows.ids[owners], ids)
        slots = rows.tables[owners, places // size] * size + places % size
        which = Reading(rows.tables, spans, all_tiles[:tiles], queries)
        nobodys = (owners == rows.nobody)[:, None]

        def attend(q, keys, values):
            mix = paged_attention(q, keys, values, which, size)
            return mix.masked_fill_(nobodys, 0) if padded else mix  # no tile has those

        return self.model.stream(ids, places, slots, pool.k, pool.v, attend)

    def record(self, capture: Callable = captured) -> None:
        """Every size, the largest first, so that all share its memory."""
        nobody = (0, 0, self.rows.nobody)
        cut = reading(NO_TABLES, [(1, 0, self.rows.nobody)], self.G)
        self.step_input.copy_(self.told([nobody], cut, SIZES[-1]))
        memory = None
        for size in reversed(SIZES):
            graph, found = capture(self.padded(size), memory)
            memory = memory or graph.pool()
            self.graphs[size] = graph, *found
