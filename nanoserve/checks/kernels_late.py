"""The path of few texts where memory is late, and in an engine: Day 25."""

import random
from collections.abc import Callable
from contextlib import ExitStack
from unittest.mock import patch

import torch
from triton.runtime.interpreter import interpreter_builder

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.kernels_decode_made import (
    DEVICE,
    SMALL,
    anything,
    fence_stands,
    fenced,
    heads,
    made,
)
from nanoserve.checks.kernels_few import SIZE, Texts
from nanoserve.comparison import Scoreboard
from nanoserve.engine.ahead import AheadEngine
from nanoserve.engine.desk import new_scheduler
from nanoserve.engine.engine import Engine
from nanoserve.engine.pool import KVPool
from nanoserve.kernels import decode, launch
from nanoserve.kernels.decode import FewTexts
from nanoserve.kernels.fused import FusedLlama
from nanoserve.kernels.runner import GPURunner
from nanoserve.sampling import SamplingParams


class Late:
    """Memory as it may be under programmatic dependent launch, at its worst; in a `with`.

    A program finds only weights, and NaN in all that kernels write, until it lets the next one in.
    From there to its wait it finds nothing at all, and after that only what kernels write: whoever
    asks for weights too late has let memory rest.
    """

    def __init__(self, weights: list[torch.Tensor], written: list[torch.Tensor]):
        self.weights, self.written = weights, written
        self.kept = {id(t): t.clone() for t in (*weights, *written)}
        self.there, self.let_in = written, 0
        self.wrong: list[str] = []  # what watched kernels did

    def __enter__(self) -> "Late":
        programs = interpreter_builder.set_grid_idx
        self.patches = ExitStack()
        begun = patch.object(interpreter_builder, "set_grid_idx", self.begin(programs))
        self.patches.enter_context(begun)
        self.patches.enter_context(anything())
        return self

    def __exit__(self, *_) -> None:
        self.patches.close()

    def show(self, shown: list[torch.Tensor]) -> None:
        """From now on a program finds these alone."""
        if self.there is shown:
            return
        if self.there is self.written:
            for t in self.written:
                self.kept[id(t)].copy_(t)
        for t in (*self.weights, *self.written):
            t.fill_(torch.nan if t.is_floating_point() else 0)
        for t in shown:
            t.copy_(self.kept[id(t)])
        self.there = shown

    def begin(self, programs: Callable) -> Callable:
        """In the place of the interpreter's step to the next program."""

        def begun(*place):
            programs(*place)
            self.show(self.weights)

        return begun

    def let_next(self, PDL) -> None:
        """In the place of the kernels' own: the next one's questions come now."""
        self.let_in += 1
        self.show([])

    def wait(self, PDL) -> None:
        """In the place of wait_ahead: the kernel ahead is done."""
        self.show(self.written)


class Watched:
    """A kernel of the step with late memory: what is wrong first with the order of its lines."""

    def __init__(self, name: str, late: Late, out: torch.Tensor):
        self.name, self.kernel = name, getattr(decode, name)
        self.late, self.out = late, out

    def __getitem__(self, grid: tuple):
        def run(*given, **named):
            let_in, is_early = self.late.let_in, named.pop("launch_pdl", False)
            with self.late:
                self.kernel[grid](*given, **named)
            if not is_early:
                self.late.wrong.append(f"{self.name} is launched without **early()")
            elif not fence_stands(self.out):
                self.late.wrong.append(f"{self.name} stores past its result: look at the mask")
            elif self.late.let_in == let_in:
                self.late.wrong.append(f"{self.name} never says let_next(PDL)")
            elif self.late.there is self.late.weights:
                self.late.wrong.append(f"{self.name} never waits: wait_ahead(PDL)")
            elif self.late.there is not self.late.written:
                self.late.wrong.append(f"{self.name} does not wait last: wait_ahead(PDL)")
            elif self.out.isnan().any():
                self.late.wrong.append(f"{self.name} computes NaN")

        return run


@torch.inference_mode()
def check_late(board: Scoreboard) -> None:
    """The order of each kernel's lines: weights are asked for before the wait, all else after it.

    On a GPU only luck shows it; here the interpreter runs our two functions in the place of both.
    """
    if not launch.INTERPRETED:
        return
    theirs, model = made(heads(2, 2, 16, tied=False), layers=2)
    texts = Texts(theirs, model, (4, 7))
    fused = FusedLlama(model, 64)
    few, newest, reading = FewTexts(fused, texts.pool, 2), texts.newest(), texts.reading()
    for name in ("x", "q", "act", "out"):
        setattr(few, name, fenced(getattr(few, name)))
    late = Late(weights_of(fused), [few.x, few.q, few.act, texts.pool.k, texts.pool.v, newest])
    outs = {"begin": few.x, "qkv": few.q, "add": few.x, "gate_up": few.act, "head": few.out}
    step = {f"{n}_kernel": Watched(f"{n}_kernel", late, out) for n, out in outs.items()}
    step |= {"early": lambda: {"PDL": True, "launch_pdl": True}}
    with patch.multiple(decode, let_next=late.let_next, wait_ahead=late.wait, **step):
        scores = attempt("scores, with late memory", few.scores, reading, newest, True).clone()
    order = (
        "weights and gains with a mask and `other`, let_next, wait_ahead, and only then all else"
    )
    holds(f"each kernel with late memory: {order}", not late.wrong, "".join(late.wrong[:1]))
    for t in late.weights:
        t.copy_(late.kept[id(t)])
    board.compare(None, "scores where memory is late", "B 2", scores, texts.theirs_next())


def weights_of(fused: FusedLlama) -> list[torch.Tensor]:
    """What kernels ask for before they wait. The embedding's rows are not: which, is not known."""
    found = [*fused.qkv, *fused.gate_up, fused.head, fused.model.norm.weight]
    for block in fused.model.blocks:
        found += [block.attn.o_proj.weight, block.mlp.down_proj.weight]
        found += [block.attn_norm.weight, block.mlp_norm.weight]
    return found


def told(engine: Engine, requests: list) -> dict[str, tuple]:
    """What each request got."""
    found = {}
    for request in requests:
        engine.add_request(*request)
    while engine.has_unfinished():
        for output in engine.step():
            found[output.request_id] = output.token_ids, output.finish_reason
    return found


@torch.inference_mode()
def check_path(most: int = 2) -> None:
    """An engine that takes this path gives each request the plain engine's ids."""
    _, model = made(heads(2, 1, 16, tied=True))
    drawn = random.Random(3)
    requests = []
    for name, n, t, m in (("a", 3, 0, 4), ("b", 5, 0.9, 2), ("c", 2, 0, 2)):
        params = SamplingParams(temperature=t, max_tokens=m, seed=n, ignore_eos=True)
        requests.append((name, [drawn.randrange(SMALL["vocab_size"]) for _ in range(n)], params))
    plainly = Engine(model, block_size=SIZE, num_blocks=9, max_num_seqs=most)
    wanted = told(plainly, requests)
    engine = AheadEngine.__new__(AheadEngine)
    engine.model, engine.tokenizer, engine.eos_ids = model, None, plainly.eos_ids
    pool = KVPool(model.config, 10, SIZE, device=DEVICE)
    taken, scores = [], FewTexts.scores

    def counted(*given):
        taken.append(1)
        return scores(*given)

    with patch.object(FewTexts, "scores", counted):  # a GPU records it, and plays the record
        runner = GPURunner(FusedLlama(model, 64), pool, most, 64)
        engine.furnish(runner, new_scheduler(False, 9, SIZE, most, 32), 64)
        engine.begin()
        agree("ids by the kernels of few texts", told(engine, requests), wanted)
    holds("the engine takes this path for its steps of one token", len(taken) > 1)
