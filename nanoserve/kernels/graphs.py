"""Decode without the host: a step of B texts, recorded once for every B and played again."""

import torch

from nanoserve.engine.pool import KVPool
from nanoserve.kernels.attention import Reading, paged_attention
from nanoserve.kernels.choice import choose
from nanoserve.kernels.decode import FewTexts
from nanoserve.kernels.fused import FusedLlama

FEW = 2  # texts: up to so many, kernels that read the weights once are faster than a library
SHORT = 160  # tokens: up to so many, a text's keys are not worth cutting
PARTS = 32  # of a text's keys, at most, where few texts are to fill the card


def sizes_up_to(most: int) -> list[int]:
    """The numbers of rows that are recorded: what is between is padded to the next."""
    return [n for n in (1, 2, 4) if n < most] + [*range(8, most, 8), most]


def told_in(memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a step is told, as parts of `memory`, which is (4, N) in int64.

    The spans of N texts of one new token, (4, N) in int32 as attention reads them; and the
    temperature and the point of each, (2, N) in float64.
    """
    spans, law = memory[:2].view(torch.int32).view(4, -1), memory[2:].view(torch.float64)
    return spans, law


class Rows:
    """What the card knows of the texts that run: a row each, and one more that is nobody's.

    `ids` (R + 1,) has the newest token of each, `tables` (R + 1, width) its blocks. Nobody's row
    names the pool's last block, which the block manager does not know of: what pads a step reads
    and writes there.
    """

    def __init__(self, count: int, width: int, pool: KVPool):
        device = pool.k.device
        self.nobody = count
        self.ids = torch.zeros(count + 1, dtype=torch.int64, device=device)
        self.tables = torch.full(
            (count + 1, width), pool.num_blocks - 1, dtype=torch.int32, device=device
        )


class DecodeGraphs:
    """Steps of one token a text, for 1 to `most` texts."""

    def __init__(self, model: FusedLlama, pool: KVPool, rows: Rows):
        self.model, self.pool, self.rows = model, pool, rows
        most, device = rows.nobody, pool.k.device
        # What a step is told, in one piece of memory.
        self.step_input = torch.zeros(4, most, dtype=torch.int64, device=device)
        self.spans, self.law = told_in(self.step_input)
        self.tiles = torch.zeros(most, 2, dtype=torch.int32, device=device)
        self.tiles[:, 0] = torch.arange(most, device=device)
        self.few = FewTexts(model, pool, FEW)
        self.sizes = sizes_up_to(most)
        self.graphs: dict[tuple[int, bool], tuple] = {}

    def step(self, B: int, short: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """The scores (B, V) and the chosen ids (B,) of a step; the ids become the rows' newest."""
        rows, (length, row) = self.rows, self.spans[2:, :B]
        reading = Reading(rows.tables, self.spans, self.tiles[:B], 1)
        if B <= FEW:
            scores = self.few.scores(reading, rows.ids, short)
        else:
            scores = self.scores(reading, rows.ids[row], length, row)
        return scores, choose(scores, self.law, row, rows.ids)

    def scores(
        self, reading: Reading, ids: torch.Tensor, length: torch.Tensor, row: torch.Tensor
    ) -> torch.Tensor:
        """By the products of a library, which many rows share."""
        size, pool, cut = self.pool.block_size, self.pool, self.cut(len(ids))
        slots = reading.tables[row, length // size] * size + length % size

        def attend(q, keys, values):
            return paged_attention(q, keys, values, reading, size, *cut)

        return self.model.scores(ids, length, slots, pool.k, pool.v, attend)

    def cut(self, B: int) -> tuple[int, int]:
        """Parts, and keys in each: more parts the fewer texts there are."""
        if B >= 64:
            return 1, 0
        width = self.rows.tables.shape[1] * self.pool.block_size
        keys = max(256 if B < 16 else 1024, -(-width // PARTS))
        return -(-width // keys), keys

    def record(self) -> None:
        """Every size, the largest first, so that all share its memory."""
        if not self.step_input.is_cuda:
            return  # the interpreter has none: every step is computed as it is
        self.tell([], [], [], [])  # what is recorded also runs, on nobody's row
        memory = None
        for B in reversed(self.sizes):
            for short in (False, True) if B <= FEW else (False,):
                self.step(B, short)  # compiles, and lets libraries take what they want
                torch.cuda.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=memory):
                    found = self.step(B, short)
                memory = memory or graph.pool()
                self.graphs[B, short] = graph, *found

    def tell(self, rows: list, lengths: list, temperatures: list, points: list) -> None:
        """What the next step is told; what is left is nobody's."""
        count, pinned = len(rows), self.step_input.is_cuda
        told = torch.zeros(self.step_input.shape, dtype=torch.int64, pin_memory=pinned)
        spans, law = told_in(told)
        spans[0], spans[1], spans[3] = torch.arange(told.shape[1]), 1, self.rows.nobody
        spans[2:, :count] = torch.tensor([lengths, rows])
        law[:, :count] = torch.tensor([temperatures, points], dtype=torch.float64)
        self.step_input.copy_(told, non_blocking=True)

    def play(self, count: int, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A step of the first `count` texts told: scores and ids, until the next one is played."""
        B = next(B for B in self.sizes if count <= B)
        short = B <= FEW and longest < SHORT
        if self.graphs:
            graph, scores, ids = self.graphs[B, short]
            graph.replay()
        else:
            scores, ids = self.step(B, short)
        return scores[:count], ids[:count]
