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
        # What a step is told, in one piece of memory: of each text its row and its length, then
        # as float64 its temperature and its point.
        self.step_input = torch.zeros(4, most, dtype=torch.int64, device=device)
        self.told, self.law = self.step_input[:2], self.step_input[2:].view(torch.float64)
        self.tiles = torch.zeros(most, 2, dtype=torch.int32, device=device)
        self.tiles[:, 0] = torch.arange(most, device=device)
        self.few = FewTexts(model, pool, FEW)
        self.sizes = sizes_up_to(most)
        self.graphs: dict[tuple[int, bool], tuple] = {}

    def step(self, B: int, short: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """The scores (B, V) and the chosen ids (B,) of a step; the ids become the rows' newest."""
        rows, (row, length) = self.rows, self.told[:, :B]
        if B <= FEW:
            scores = self.few.scores(B, self.told, rows.ids, rows.tables, short)
        else:
            scores = self.scores(B, row, length)
        return scores, choose(scores, self.law, row, rows.ids)

    def scores(self, B: int, row: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """By the products of a library, which many rows share."""
        rows, size = self.rows, self.pool.block_size
        slots = rows.tables[row, length // size] * size + length % size
        spans = torch.stack([self.tiles[:B, 0], torch.ones_like(row), length, row], 1).int()
        reading, cut = Reading(rows.tables, spans, self.tiles[:B], 1), self.cut(B)

        def attend(q, keys, values):
            return paged_attention(q, keys, values, reading, size, *cut)

        ids, pool = rows.ids[row], self.pool
        return self.model.scores(ids, length, slots, pool.k, pool.v, attend)

    def cut(self, B: int) -> tuple[int, int]:
        """Keys in a part, and parts: more of them the fewer texts there are."""
        if B >= 64:
            return 0, 1
        width = self.rows.tables.shape[1] * self.pool.block_size
        keys = max(256 if B < 16 else 1024, -(-width // PARTS))
        return keys, -(-width // keys)

    def record(self) -> None:
        """Every size, the largest first, so that all share its memory."""
        if not self.step_input.is_cuda:
            return  # the interpreter has none: every step is computed as it is
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
        told, count = (
            torch.zeros(
                self.step_input.shape, dtype=torch.int64, pin_memory=self.step_input.is_cuda
            ),
            len(rows),
        )
        law = told[2:].view(torch.float64)
        told[0] = self.rows.nobody
        told[:2, :count] = torch.tensor([rows, lengths])
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
