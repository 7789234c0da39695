"""An engine that plans ahead, beside Day 16's and HuggingFace, each request alone: Day 24."""

import random
from collections.abc import Sequence
from dataclasses import replace

import torch

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.generating_pieces import same_logprobs
from nanoserve.checks.serving import poison
from nanoserve.engine.ahead import PENDING, AheadEngine
from nanoserve.engine.desk import new_scheduler
from nanoserve.engine.engine import Engine
from nanoserve.engine.plan import Plan, Share
from nanoserve.engine.pool import KVPool
from nanoserve.engine.request import RequestOutput
from nanoserve.engine.runner import Runner
from nanoserve.kernels.fused import FusedLlama
from nanoserve.kernels.runner import Due, plain
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams

Asked = tuple[str, list[int], SamplingParams]
Told = dict[str, list[RequestOutput]]
END = 3  # the id that ends a text


class Late(Runner):
    """The plain runner as one that does not wait: the host gets ids a step late."""

    def __init__(self, model: Llama, pool: KVPool):
        super().__init__(model, pool)
        self.newest: dict = {}
        self.can_lag = True

    def launch(self, plan: Plan) -> Due:
        """A step; PENDING ids are taken from what this runner chose last."""
        self.can_lag = all(plain(share.request.params) for share in plan.shares)
        shares = [replace(s, ids=tuple(self.known(s, i) for i in s.ids)) for s in plan.shares]
        ids, logprobs = self.run(Plan(tuple(shares)))
        for share, token in zip(plan.sampling, ids, strict=True):
            self.newest[share.request] = token
        return Due(torch.tensor(ids), None, logprobs)

    def known(self, share: Share, token: int) -> int:
        """A token that the host may not know yet."""
        return self.newest[share.request] if token == PENDING else token


def ahead(
    model: Llama,
    runner: type = Late,
    num_blocks: int = 40,
    size: int = 4,
    rows: int = 3,
    budget: int = 9,
    caching: bool = True,
) -> AheadEngine:
    """An engine that plans ahead, with this runner, for texts of 64 tokens."""
    engine = AheadEngine.__new__(AheadEngine)
    engine.model, engine.tokenizer, engine.eos_ids = model, None, (END,)
    weight = model.embed.weight
    kind = size, weight.dtype, weight.device
    if runner is Late:
        made = Late(model, KVPool(model.config, num_blocks, *kind))
    else:  # a block more than the manager knows of
        pool = KVPool(model.config, num_blocks + 1, *kind)
        made = runner(FusedLlama(model, 64), pool, rows, 64)
    engine.furnish(made, new_scheduler(caching, num_blocks, size, rows, budget), 64)
    engine.begin()
    return engine


def beside(
    model: Llama,
    num_blocks: int = 40,
    size: int = 4,
    rows: int = 3,
    budget: int = 9,
    caching: bool = True,
) -> Engine:
    """Day 16's engine with the same settings."""
    engine = Engine(
        model,
        block_size=size,
        num_blocks=num_blocks,
        max_num_seqs=rows,
        max_num_batched_tokens=budget,
        enable_prefix_caching=caching,
    )
    engine.eos_ids = (END,)
    return engine


def asked(seed: int, count: int, special: bool, vocab: int = 61) -> list[Asked]:
    """Prompts that begin alike now and then, and params; with `special`, also those with rules."""
    drawn = random.Random(seed)
    same, found = [drawn.randrange(vocab) for _ in range(9)], []
    for i in range(count):
        tail = [drawn.randrange(vocab) for _ in range(drawn.randint(1, 6))]
        ids = same[: drawn.choice((0, 5, 9))] + tail
        more = {"top_k": 5} if drawn.random() < 0.3 else {"frequency_penalty": 0.5, "logprobs": 2}
        rules = more if special and drawn.random() < 0.5 else {}
        kind = drawn.choice((0, 0.8, 1.5))
        params = SamplingParams(temperature=kind, max_tokens=drawn.randint(1, 7), seed=i, **rules)
        found.append((f"r{i}", ids, params))
    return found


def play(
    engine: Engine,
    requests: Sequence[Asked],
    aborts: Sequence[tuple[int, str]] = (),
    only_ended: bool = False,
) -> Told:
    """All of them, some a few steps later; by name what each step told, until it ended.

    Between any two steps what nobody owns is NaN, and now and then the books are audited.
    """
    told: Told = {}
    coming, step = [*requests], 0
    while coming or engine.has_unfinished():
        for _ in range(2 if step % 3 == 0 else 0):
            if coming:
                attempt("add_request", engine.add_request, *coming.pop(0))
        for name in [name for when, name in aborts if when == step]:
            attempt("abort", engine.abort, name)
        note(told, attempt("step", engine.step, only_ended))
        if step % 4 == 0:
            attempt("audit", engine.audit)
        poison(engine)
        step += 1
        holds("all must have ended after 400 steps", step < 400)
    note(told, attempt("step", engine.step))  # of what was aborted last
    agree("free blocks at the end", engine.num_free_blocks, engine.scheduler.blocks.num_blocks)
    return told


def note(told: Told, outputs: Sequence[RequestOutput]) -> None:
    """Add what a step told."""
    for output in outputs:
        told.setdefault(output.request_id, []).append(output)


def check_told(what: str, mine: Told, wanted: Told) -> None:
    """Each request was told the same ids, one more each time, the same end and logprobs."""
    agree(f"{what}: requests", sorted(mine), sorted(wanted))
    for name, theirs in wanted.items():
        for field in ("token_ids", "finished", "finish_reason", "num_cached_tokens"):
            both = ([getattr(output, field) for output in side] for side in (mine[name], theirs))
            agree(f"{what}, {name}: {field} of each step", *both)
        same_logprobs(f"{what}, {name}", mine[name][-1].logprobs, theirs[-1].logprobs)
