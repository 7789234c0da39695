"""Which steps are recorded, which one plays, and what it is told: without a kernel. Day 24."""

from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest.mock import patch

import torch

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.kernels_steps import DEVICE
from nanoserve.engine.pool import KVPool
from nanoserve.kernels.fused import FusedLlama
from nanoserve.kernels.graphs import FEW, PARTS, SHORT, DecodeGraphs, Rows, captured, sizes_up_to
from nanoserve.model import Llama


class Stub(DecodeGraphs):
    """Steps without kernels: what is noted is which of them ran."""

    def step(self, B: int, short: bool) -> tuple[torch.Tensor, torch.Tensor]:
        self.ran.append((B, short))
        return torch.full((B, 3), float(len(self.ran))), self.spans[3, :B].long()


def check_captured() -> None:
    """A step runs before it is recorded, and the graph gets the memory that it is given."""
    happened: list = []

    @contextmanager
    def recording(graph, pool=None):
        happened.append(("recording", pool))
        yield
        happened.append("recorded")

    def step():
        happened.append("step")
        return len(happened)

    fakes = {"graph": recording, "CUDAGraph": lambda: "a graph", "synchronize": lambda: None}
    with ExitStack() as stack:
        for name, fake in fakes.items():
            stack.enter_context(patch(f"torch.cuda.{name}", fake))
        found = attempt("captured", captured, step, (0, 7))
    agree("captured", happened, ["step", ("recording", (0, 7)), "step", "recorded"])
    agree("what captured gives", found, ("a graph", 3))


def check_cut(graphs: DecodeGraphs) -> None:
    """The parts of a text's keys reach all places of its table, and are not too many."""
    for width in (1, 16, 17, 64, 100, 512, 2100):
        graphs.rows.tables = torch.zeros(3, width, dtype=torch.int32)
        places = width * graphs.pool.block_size
        for B in (1, 2, 8, 15, 16, 40, 63, 64, 256):
            parts, keys = graphs.cut(B)
            what = f"cut({B}) of {places} places"
            holds(f"{what} must be 1 to {PARTS} parts", 1 <= parts <= PARTS)
            enough = (parts - 1) * keys < places <= parts * keys if keys else parts == 1
            holds(f"{what} must reach all, and no part be empty", enough, f"{parts} of {keys}")
        agree("a full batch is not cut", graphs.cut(64), (1, 0))


def check_paths(model: Llama) -> None:
    """Few texts go through the kernels for few, more through attention in parts."""
    pool = KVPool(model.config, 3, 4, device=DEVICE)
    graphs = DecodeGraphs(FusedLlama(model, 40), pool, Rows(3, 2, pool))
    taken: list = []
    agree("texts for which FewTexts has room", len(graphs.few.x), FEW)

    def few(reading, newest, short):
        taken.append(("few", len(reading.tiles), short))

    def attention(q, keys, values, reading, size, *cut):
        taken.append(("many", len(reading.tiles), cut))

    graphs.few = SimpleNamespace(scores=few)
    graphs.model = SimpleNamespace(scores=lambda *given: given[-1](None, None, None))
    here = {"choose": lambda *given: None, "paged_attention": attention}
    with patch.multiple("nanoserve.kernels.graphs", **here):
        for B, short in ((1, True), (1, False), (FEW, True), (FEW, False), (FEW + 1, False)):
            attempt("DecodeStep.step", graphs.step, B, short)
    asked = [("few", B, short) for B in (1, FEW) for short in (True, False)]
    agree("kernels taken", taken, [*asked, ("many", FEW + 1, graphs.cut(FEW + 1))])


def check_records(model: Llama) -> None:
    """Every size once, the largest first, in one memory; and which graph plays for whom."""
    check_captured()
    for most in (1, 2, 3, 5, 8, 19):
        agree(
            f"sizes up to {most}",
            sizes_up_to(most),
            [b for b in (1, 2, 4, 8, 16) if b < most] + [most],
        )
        pool = KVPool(model.config, 3, 4, device=DEVICE)
        graphs = Stub(FusedLlama(model, 40), pool, Rows(most, 2, pool))
        graphs.ran, given = [], []

        def capture(step, memory, given=given, nobody=most):
            """A graph on paper: its replay does all again, into the same memory."""
            given.append(memory)
            number = 0, len(given)
            found = step()
            agree(
                f"rows of what is recorded (nobody's is {nobody})", {*found[1].tolist()}, {nobody}
            )

            def replay():
                for old, new in zip(found, step(), strict=True):
                    old.copy_(new)

            return SimpleNamespace(replay=replay, pool=lambda: number), found

        attempt("record", graphs.record, capture)
        sizes = [
            (b, s) for b in sizes_up_to(most) for s in ((True, False) if b <= FEW else (False,))
        ]
        agree(f"recorded of {most}", sorted(graphs.ran), sorted(sizes))
        agree(
            "largest first", [b for b, _ in graphs.ran], sorted((b for b, _ in sizes), reverse=True)
        )
        agree("memory of each graph", given, [None] + [(0, 1)] * (len(sizes) - 1))
        check_plays(graphs, most)
    check_paths(model)
    check_cut(graphs)


def check_plays(graphs: Stub, most: int) -> None:
    """Of each number of texts: what is told, and the one graph that plays."""
    memory = graphs.step_input.data_ptr()
    for count in [*range(most, 0, -1)]:
        for longest in (0, SHORT - 1, SHORT):
            rows = [*range(most)][::-1][:count]
            lengths = [max(0, longest - count + 1 + i) for i in range(count)]
            law = [[0.5 + i for i in range(count)], [i / 33 for i in range(count)]]
            graphs.tell(rows, lengths, *law)
            left = most - count
            told = [[*range(most)], [1] * most, lengths + [0] * left, rows + [most] * left]
            agree(f"spans told for {count} of {most}", graphs.spans.tolist(), told)
            tiles = graphs.tiles[:, 0].tolist()
            agree(f"whose tiles, for {count} of {most}", sorted(tiles), [*range(most)])
            turns = [lengths[i] if i < count else 0 for i in tiles[:count]]
            agree("lengths in attention's order, the longest first", turns, lengths[::-1])
            agree("temperatures and points", graphs.law.tolist(), [x + [0.0] * left for x in law])
            agree("the memory that a step is told in", graphs.step_input.data_ptr(), memory)
            graphs.ran.clear()
            scores, ids = attempt("play", graphs.play, count, longest)
            B = min(b for b in sizes_up_to(most) if b >= count)
            agree(f"played for {count}", graphs.ran, [(B, B <= FEW and longest < SHORT)])
            agree(f"scores for {count}", (len(scores), scores[0, 0].item()), (count, 1.0))
            agree(f"ids for {count}", ids.tolist(), rows)
