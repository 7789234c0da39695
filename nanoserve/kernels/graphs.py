"""Decode without the host: a step of B texts, recorded once for every B and played again."""

import torch

from nanoserve.engine.pool import KVPool
from nanoserve.kernels.attention import Reading, paged_attention
from nanoserve.kernels.choice import choose
from nanoserve.kernels.fused import FusedLlama

PARTS = 32  # of a text's keys, at most, where few texts are to fill the card


def sizes_up_to(most: int) -> list[int]:
    """The numbers of rows that are recorded: what is between is padded to the next."""
    return [n for n in (1, 2, 4) if n < most] + [*range(8, most, 8), most]


class Rows:
    """What the card knows of the texts that run: a row each, and one more that is nobody's.

    `ids` (R + 1,) has the newest token of each. `tables` (R + 1, width) has its blocks. Nobody's row
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
        # What a step is told: of each text its row and its length, its temperature and its point.
        self.told = torch.zeros(2, most, dtype=torch.int64, device=device)
        self.told[0] = rows.nobody
        self.law = torch.zeros(2, most, dtype=torch.float64, device=device)
        self.tiles = torch.zeros(most, 2, dtype=torch.int32, device=device)
        self.tiles[:, 0] = torch.arange(most, device=device)
        self.sizes = sizes_up_to(most)
        self.graphs: dict[int, tuple] = {}

    def step(self, B: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The scores (B, V) and the chosen ids (B,) of a step; the ids become the rows' newest."""
        rows, size, (row, length) = self.rows, self.pool.block_size, self.told[:, :B]
        block = rows.tables[row, length // size]
        slots = block * size + length % size
        one = torch.ones_like(row)
        spans = torch.stack([torch.arange(B, device=row.device), one, length, row], 1)
        reading = Reading(rows.tables, spans.int(), self.tiles[:B], 1)
        cut = self.cut(B)

        def attend(q, keys, values):
            return paged_attention(q, keys, values, reading, size, *cut)

        scores = self.model.scores(rows.ids[row], length, slots, self.pool.k, self.pool.v, attend)
        temperature, point = self.law[:, :B]
        ids = choose(scores, temperature.float(), point)
        rows.ids[row] = ids
        return scores, ids

    def cut(self, B: int) -> tuple[int, int]:
        """Keys in a part, and parts: more of them the fewer texts there are."""
        if B >= 64:
            return 0, 1
        keys = 128 if B < 16 else 256
        width = self.rows.tables.shape[1] * self.pool.block_size
        keys = max(keys, -(-width // PARTS))
        return keys, -(-width // keys)

    def record(self) -> None:
        """Every size, the largest first, so that all share its memory."""
        memory = None
        for B in reversed(self.sizes):
            self.step(B)  # compiles, and lets libraries take what they want
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=memory):
                found = self.step(B)
            memory = memory or graph.pool()
            self.graphs[B] = graph, *found

    def tell(self, told: torch.Tensor, law: torch.Tensor) -> None:
        """Rows and lengths, temperatures and points of the next step; nobody fills it up."""
        count = told.shape[1]
        self.told[:, :count], self.law[:, :count] = told, law
        self.told[0, count:], self.told[1, count:] = self.rows.nobody, 0

    def play(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A step of the first `count` texts told: scores and ids, until the next one is played."""
        graph, scores, ids = self.graphs[next(B for B in self.sizes if count <= B)]
        graph.replay()
        return scores[:count], ids[:count]
