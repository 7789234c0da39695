"""The runner of a GPU: starts a step and does not wait for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nanoserve.engine.ahead import PENDING
from nanoserve.engine.plan import Plan, Share
from nanoserve.engine.pool import KVPool
from nanoserve.engine.request import Request
from nanoserve.engine.runner import draw
from nanoserve.kernels.choice import choose
from nanoserve.kernels.fused import FusedLlama
from nanoserve.kernels.graphs import DecodeGraphs, Rows
from nanoserve.kernels.reads import ReadGraphs
from nanoserve.sampling import GREEDY, Logprob, SamplingParams, uniform


def plain(params: SamplingParams) -> bool:
    """Whether nothing but a temperature touches the scores."""
    return (
        params.top_k <= 0
        and params.top_p >= 1
        and params.min_p <= 0
        and params.min_tokens == 0
        and params.repetition_penalty == 1
        and params.presence_penalty == params.frequency_penalty == 0
        and params.logprobs is None
    )


@dataclass
class Due:
    """Ids on their way to the host."""

    ids: torch.Tensor
    arrived: "torch.cuda.Event | None"
    logprobs: list[dict[int, Logprob]]

    def result(self) -> tuple[list[int], list[dict[int, Logprob]]]:
        """The ids and their logprobs, when the card is done."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.ids.tolist(), self.logprobs


class GPURunner:
    """A model on a GPU, the pool, and the rows of the texts that run.

    The pool has one block more than the block manager knows of.
    """

    def __init__(self, model: FusedLlama, pool: KVPool, max_num_seqs: int, max_len: int):
        self.model, self.pool, self.device = model, pool, pool.k.device
        self.rows = Rows(max_num_seqs, -(-max_len // pool.block_size), pool)
        self.graphs = DecodeGraphs(self.model, pool, self.rows)
        self.reads = ReadGraphs(self.model, pool, self.rows)
        self.free = [*reversed(range(max_num_seqs))]
        self.row_of: dict[Request, int] = {}
        # The table that a row was told of, and how many of its blocks: a table that is given
        # back is never the same list again.
        self.told: dict[Request, tuple[list[int], int]] = {}
        self.special: set[Request] = set()  # those whose params are not plain
        if pool.k.is_cuda:  # elsewhere there are none: every step is computed as it is
            with torch.inference_mode():
                self.graphs.record()
                self.reads.record()
                # A prompt of two, on nobody's row: what it takes is compiled before anybody waits.
                self.read(Plan((Share(None, 0, (0, 0), True),)), [self.rows.nobody])

    @property
    def can_lag(self) -> bool:
        """Whether a step may start before the newest ids are known."""
        return not self.special

    def send(self, values: Sequence, dtype: torch.dtype) -> torch.Tensor:
        """To the card, without waiting for it."""
        sent = torch.tensor(values, dtype=dtype)
        if self.device.type == "cuda":
            sent = sent.pin_memory()
        return sent.to(self.device, non_blocking=True)

    def place(self, requests: Sequence[Request]) -> list[int]:
        """A row for each, which knows its blocks."""
        for request in [r for r in self.row_of if not r.table]:
            self.free.append(self.row_of.pop(request))
            del self.told[request]
            self.special.discard(request)
        places, blocks, rows = [], [], []
        for request in requests:
            row, table = self.row_of.get(request), request.table
            if row is None:
                row = self.row_of[request] = self.free.pop()
                self.told[request] = table, 0
                if not plain(request.params):
                    self.special.add(request)
            known, count = self.told[request]
            if count != len(table) or known is not table:
                first = count if known is table else 0
                places += [(row, i) for i in range(first, len(table))]
                blocks += table[first:]
                self.told[request] = table, len(table)
            rows.append(row)
        if places:
            at = self.send(places, torch.int64)
            self.rows.tables[at[:, 0], at[:, 1]] = self.send(blocks, torch.int32)
        return rows

    @torch.inference_mode()
    def launch(self, plan: Plan) -> Due:
        """Start a step. Ids that are PENDING are the newest of their rows."""
        rows, due = self.place([s.request for s in plan.shares]), plan.sampling
        params = [share.request.params for share in due]
        # Of a draw: the place in the output is all that is known, whether or not its id is.
        written = [len(r.tokens) - len(r.prompt_ids) for r in (share.request for share in due)]
        points = [uniform(p.seed, n) for p, n in zip(params, written, strict=True)]
        temperatures = [0.0 if p.temperature < GREEDY else p.temperature for p in params]
        simple = not self.special
        if simple and len(due) == len(plan.shares) == sum(len(s.ids) for s in plan.shares):
            # A prompt's last token was never chosen: the card does not have it in its row.
            known = [(r, s.ids[0]) for r, s in zip(rows, due, strict=True) if s.ids[0] != PENDING]
            if known:
                at, ids = self.send([*zip(*known, strict=True)], torch.int64)
                self.rows.ids[at] = ids
            lengths = [share.start for share in due]
            self.graphs.tell(rows, lengths, temperatures, points)
            _, ids = self.graphs.play(len(due), max(lengths))
            return self.due(ids, [{}] * len(due))
        scores = self.read(plan, rows)
        owners = [row for row, share in zip(rows, plan.shares, strict=True) if share.samples]
        at, newest = self.send(owners, torch.int64), self.rows.ids
        if not due:
            return self.due(at, [])
        if simple:
            law = self.send([temperatures, points], torch.float64)  # (2, N)
            return self.due(choose(scores, law, at, newest), [{}] * len(due))
        # By all the rules of Day 9; the host knows these ids before the next step.
        ids, logprobs = draw(scores, [share.request for share in due])
        return Due(torch.tensor(ids), None, logprobs)

    def read(self, plan: Plan, rows: Sequence[int]) -> torch.Tensor:
        """A packed row of all shares: the scores (N, V) of those due."""
        tokens, spans, last = [], [], []
        for share, row in zip(plan.shares, rows, strict=True):
            tokens += [(token, place, row) for place, token in enumerate(share.ids, share.start)]
            spans.append((len(share.ids), share.start, row))
            if share.samples:
                last.append(len(tokens) - 1)
        return self.model.scores_of(*self.reads.stream(tokens, spans), self.send(last, torch.int64))

    def due(self, ids: torch.Tensor, logprobs: list) -> Due:
        """Send ids to the host, and mark when they are there."""
        if self.device.type != "cuda":
            return Due(ids.clone(), None, logprobs)
        there = torch.empty(ids.shape, dtype=ids.dtype, pin_memory=True)
        there.copy_(ids, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return Due(there, arrived, logprobs)
