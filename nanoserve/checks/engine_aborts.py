"""Requests aborted at every moment, and books that were falsified: Day 16."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from nanoserve.checks.common import agree, attempt, holds, must_raise
from nanoserve.checks.generating_pieces import GREEDY
from nanoserve.checks.model import tokens
from nanoserve.checks.serving import hear, run
from nanoserve.engine.engine import Engine
from nanoserve.engine.request import RequestOutput
from nanoserve.generate import generate
from nanoserve.model import Llama

ABORTED = {
    "num_blocks": 4,
    "block_size": 8,
    "max_num_batched_tokens": 7,
    "max_num_seqs": 2,
    "enable_prefix_caching": False,
}


def check_aborts(model: Llama, moments: Sequence[int] = range(9), **settings: Any) -> None:
    """At every moment: told of once, in the next step; blocks and name are free at once."""
    mix = [
        (row[:n], replace(GREEDY, max_tokens=6))
        for row, n in zip(tokens(3, 20).tolist(), (20, 9, 2), strict=True)
    ]
    alone = [generate(model, *asked).token_ids for asked in mix]
    for moment in moments:
        for victim in range(3):
            engine = Engine(model, **ABORTED | settings)
            for i, asked in enumerate(mix):
                engine.add_request(str(i), *asked)
            told: dict[str, RequestOutput] = {}
            for _ in range(moment):
                hear("before an abort", engine, told)
            what, name = f"request {victim} aborted after {moment} steps", str(victim)
            lives = not (name in told and told[name].finished)
            agree(what, attempt(what, engine.abort, name), lives)
            agree(f"{what}, again", attempt(what, engine.abort, name), False)
            attempt(f"{what}: audit", engine.audit)
            if lives:
                ids = told[name].token_ids if name in told else []
                outputs = {output.request_id: output for output in engine.step()}
                holds(f"{what}: the next step must tell of it", name in outputs)
                output = outputs.pop(name)
                agree(
                    f"{what}: its end",
                    (output.token_ids, output.finished, output.finish_reason),
                    (ids, True, "abort"),
                )
                told |= outputs
            told = {i: output for i, output in run(engine, told).items() if i != name}
            agree(
                f"{what}: the others",
                {i: o.token_ids for i, o in told.items()},
                {str(i): ids for i, ids in enumerate(alone) if i != victim},
            )
            agree(f"{what}: free blocks", engine.num_free_blocks, 4)
    agree("an abort of nobody", engine.abort("nobody"), False)
    engine.add_request("a", *mix[0])
    engine.step()
    engine.abort("a")
    agree(
        "free blocks after the only one was aborted",
        (engine.num_free_blocks, engine.has_unfinished()),
        (4, False),
    )
    engine.add_request("a", *mix[2])
    agree("ids of one with an aborted one's name", run(engine)["a"].token_ids, alone[2])


def check_audit(model: Llama) -> None:
    """Books that were falsified are found out."""
    falsify: dict[str, Callable[[Any, Any], Any]] = {
        "a reference too many": lambda s, r: s.blocks.references.__setitem__(r.table[0], 2),
        "a block lost": lambda s, r: s.blocks.queue.popitem(),
        "a block forgotten by its table": lambda s, r: r.table.pop(),
        "more computed than known": lambda s, r: setattr(r, "computed", 21),
        "more computed than there is room": lambda s, r: (
            r.tokens.extend([1] * 90) or setattr(r, "computed", 80)
        ),
        "queued twice": lambda s, r: s.waiting.append(r),
        "waiting with computed tokens": lambda s, r: setattr(s.waiting[0], "computed", 1),
        "waiting with a table": lambda s, r: s.waiting[0].table.append(r.table[0]),
        "running after its end": lambda s, r: setattr(r, "finish_reason", "stop"),
        "gone from the queues": lambda s, r: s.waiting.clear(),
    }
    for what, act in falsify.items():
        engine = Engine(model, num_blocks=8, max_num_seqs=1)
        for name in "ab":
            engine.add_request(name, tokens(1, 20)[0].tolist(), GREEDY)
        engine.step()
        attempt("audit of sound books", engine.audit)
        act(engine.scheduler, engine.scheduler.running[0])
        must_raise(AssertionError, f"audit where one is {what}", engine.audit)
