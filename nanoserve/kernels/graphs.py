"""Decode without the host: steps recorded once, and played again.

Built in the book: day24. Edit there, then run book/tangle.py.
"""

from collections.abc import Callable
from functools import partial

import torch

from nanoserve.engine.pool import KVPool
from nanoserve.kernels.attention import Reading, paged_attention
from nanoserve.kernels.choice import choose
from nanoserve.kernels.decode import FewTexts
from nanoserve.kernels.fused import FusedLlama

FEW = 2  # texts: up to so many, Day 25's kernels are faster
SHORT = 160  # tokens: up to so many, a text's keys are not worth cutting
PARTS = 32  # of a text's keys, at most, where few are to fill the card


def sizes_up_to(most: int) -> list[int]:
    """Of the batches that are recorded. What is between is padded."""
    small = [n for n in (1, 2, 4) if n < most]
    return [*small, *range(8, most, 8), most]


class Rows:
    """What the card knows of the texts that run: a row each, and nobody's.

    `ids` (R + 1,) has the newest token of each, `tables` (R + 1, width)
    its blocks. The last row is nobody's and names the pool's last block,
    which the block manager does not know of: what pads a step reads and
    writes there.
    """

    def __init__(self, count: int, width: int, pool: KVPool):
        device = pool.k.device
        self.nobody = count
        self.ids = torch.zeros(count + 1, dtype=torch.int64, device=device)
        self.tables = torch.full(
            (count + 1, width),
            pool.num_blocks - 1,
            dtype=torch.int32,
            device=device,
        )


def told_in(memory: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What a step is told, as parts of `memory`, (5, N) in int64.

    Of N texts of one new token: the spans (4, N) and the tiles (N, 2),
    in int32 as attention reads them; and the temperature and the point
    of each, (2, N) in float64.
    """
    spans = memory[:2].view(torch.int32).view(4, -1)
    tiles = memory[2].view(torch.int32).view(-1, 2)
    return spans, tiles, memory[3:].view(torch.float64)


class DecodeStep:
    """A token more for each of 1 to `most` texts, in memory that stays."""

    def __init__(self, model: FusedLlama, pool: KVPool, rows: Rows):
        self.model, self.pool, self.rows = model, pool, rows
        most, device = rows.nobody, pool.k.device
        # What a step is told, in one piece of memory.
        self.step_input = torch.zeros(5, most, dtype=torch.int64, device=device)
        self.spans, self.tiles, self.law = told_in(self.step_input)
        self.few = FewTexts(model, pool, FEW)

    def tell(self, rows: list, lengths: list, temperatures: list, points: list) -> None:
        """What the next step is told; what is left is nobody's."""
        count, pinned = len(rows), self.step_input.is_cuda
        told = torch.zeros(self.step_input.shape, dtype=torch.int64, pin_memory=pinned)
        spans, tiles, law = told_in(told)
        spans[0] = tiles[:, 0] = torch.arange(told.shape[1])
        spans[1], spans[3] = 1, self.rows.nobody
        spans[2:, :count] = torch.tensor([lengths, rows])
        # The longest first: it would be the last to be done, too.
        tiles[:count, 0] = spans[2, :count].argsort(descending=True)
        asked = [temperatures, points]
        law[:, :count] = torch.tensor(asked, dtype=torch.float64)
        self.step_input.copy_(told, non_blocking=True)

    def step(self, B: int, short: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (B, V) and chosen ids (B,), which become the newest."""
        rows, (length, row) = self.rows, self.spans[2:, :B]
        reading = Reading(rows.tables, self.spans, self.tiles[:B], 1)
        if B <= FEW:
            scores = self.few.scores(reading, rows.ids, short)
        else:
            scores = self.scores(reading, rows.ids[row], length, row)
        return scores, choose(scores, self.law, row, rows.ids)

    def scores(
        self,
        reading: Reading,
        ids: torch.Tensor,
        length: torch.Tensor,
        row: torch.Tensor,
    ) -> torch.Tensor:
        """By the products of a library, which many rows share."""
        size, pool = self.pool.block_size, self.pool
        block = reading.tables[row, length // size]
        slots = block * size + length % size
        held, cut = (pool.k, pool.v), self.cut(len(ids))

        def attend(q, keys, values):
            return paged_attention(q, keys, values, reading, size, *cut)

        return self.model.scores(ids, length, slots, *held, attend)

    def cut(self, B: int) -> tuple[int, int]:
        """Parts, and keys in each: the fewer texts, the more parts."""
        if B >= 64:
            return 1, 0
        width = self.rows.tables.shape[1] * self.pool.block_size
        keys = max(256 if B < 16 else 1024, -(-width // PARTS))
        return -(-width // keys), keys


def captured(step: Callable, memory: tuple | None) -> tuple:
    """A CUDA graph of `step`, and what each replay of it leaves where.

    `memory` is another graph's, to be used again: only one plays.
    """
    step()  # compiles, and lets libraries take what they want
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=memory):
        found = step()
    return graph, found


class DecodeGraphs(DecodeStep):
    """A DecodeStep, recorded for some batches and played for all."""

    def __init__(self, model: FusedLlama, pool: KVPool, rows: Rows):
        super().__init__(model, pool, rows)
        self.sizes = sizes_up_to(rows.nobody)
        self.graphs: dict[tuple[int, bool], tuple] = {}

    def record(self, capture: Callable = captured) -> None:
        """Every size, the largest first, so that all share its memory."""
        self.tell([], [], [], [])  # each runs first, on nobody's row
        memory = None
        for B in reversed(self.sizes):
            for short in (False, True) if B <= FEW else (False,):
                step = partial(self.step, B, short)
                graph, found = capture(step, memory)
                memory = memory or graph.pool()
                self.graphs[B, short] = graph, *found

    def play(self, count: int, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and ids of the first `count`, until the next play."""
        B = next(B for B in self.sizes if count <= B)
        short = B <= FEW and longest < SHORT
        if not self.graphs:  # by the interpreter, which has none
            scores, ids = self.step(B, short)
        else:
            graph, scores, ids = self.graphs[B, short]
            graph.replay()
        return scores[:count], ids[:count]
