"""Each request alone, in company, cramped, in chunks: one text, that of HuggingFace. Day 16.

T1 and T5 of the five tests; T2, the audit, and T3, the poisoned pool, between any two steps.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.generating import sure_ids
from nanoserve.checks.generating_pieces import same_logprobs
from nanoserve.comparison import Scoreboard
from nanoserve.engine.engine import Engine
from nanoserve.engine.pool import slots_of
from nanoserve.engine.request import RequestOutput
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams

Mix = Sequence[tuple[list[int], SamplingParams]]
Scores = dict[str, list[torch.Tensor]]
GREEDY = SamplingParams(temperature=0, max_tokens=13, ignore_eos=True)
LENGTHS = (15, 16, 17, 31, 32, 33, 1, 2)  # of the greedy ones: around whole blocks
SAMPLED = (
    replace(GREEDY, temperature=1.4, seed=5, logprobs=2),
    replace(GREEDY, temperature=1.5, top_k=20, top_p=0.9, seed=7, repetition_penalty=1.3),
    replace(GREEDY, temperature=0.8, seed=5, presence_penalty=1.0, frequency_penalty=0.5),
    replace(GREEDY, temperature=1.0, seed=1, min_tokens=4, stop_token_ids=tuple(range(0, 61, 3))),
)
MODES: dict[str, dict[str, Any]] = {
    "in company": {},
    "one at a time": {"max_num_seqs": 1},
    "five at a time": {"max_num_seqs": 5},
    "in a cramped pool": {"num_blocks": 7},
    "in chunks of 1": {"max_num_batched_tokens": 1},
    "in chunks of 7": {"max_num_batched_tokens": 7},
    "in chunks of 16": {"max_num_batched_tokens": 16},
    "in blocks of 1": {"block_size": 1, "num_blocks": 700},
    "in blocks of 2": {"block_size": 2, "num_blocks": 400},
    "in blocks of 3, cramped, in chunks of 19": {
        "block_size": 3,
        "num_blocks": 30,
        "max_num_batched_tokens": 19,
    },
}


def mix_of(vocab: int) -> list[tuple[list[int], SamplingParams]]:
    """Twelve requests, eight of them greedy; none lasts as long as another that it ends with."""
    lengths = [*LENGTHS, 3, 20, 48, 5]
    ids = torch.randint(vocab, (12, 48), generator=torch.Generator().manual_seed(4)).tolist()
    params = [replace(GREEDY, max_tokens=13 + i) for i in range(8)] + list(SAMPLED)
    return [(row[:n], p) for row, n, p in zip(ids, lengths, params, strict=True)]


def poison(engine: Engine) -> None:
    """NaN in every slot of the pool, but where computed tokens or found blocks are."""
    pool, kept = engine.runner.pool, []
    for block in getattr(engine.scheduler.blocks, "found", {}).values():
        kept += range(block * pool.block_size, (block + 1) * pool.block_size)
    for request in engine.scheduler.running:
        kept += (
            slots_of(request.table, request.computed, pool.block_size).tolist()
            if request.computed
            else []
        )
    gone = torch.ones(pool.k.shape[1], dtype=torch.bool)
    gone[kept] = False
    pool.k[:, gone], pool.v[:, gone] = torch.nan, torch.nan


def watched(engine: Engine) -> Scores:
    """The scores that each request's tokens are drawn from, by its id, as they come."""
    given, plain = defaultdict(list), engine.runner.logits

    def logits(plan):
        rows = plain(plan)
        for share, row in zip(plan.sampling, rows, strict=True):
            given[share.request.request_id].append(row)
        return rows

    engine.runner.logits = logits
    return given


def serve(what: str, engine: Engine, mix: Mix) -> tuple[list[RequestOutput], Scores]:
    """What each request of the mix is answered, and its scores; one arrives with every step.

    Between any two steps the books are audited, and what nobody owns is NaN.
    """
    told, due, scores = {}, dict(enumerate(mix)), watched(engine)
    for _ in range(3000):
        if not due and not engine.has_unfinished():
            break
        if due:
            number = min(due)
            attempt(f"{what}: add_request", engine.add_request, str(number), *due.pop(number))
        attempt(f"{what}: audit", engine.audit)
        poison(engine)
        names = [output.request_id for output in hear(what, engine, told)]
        agree(f"{what}: requests in what a step tells", len(names), len(set(names)))
    agree(f"{what}: requests after 3,000 steps", engine.has_unfinished(), False)
    agree(f"{what}: free blocks at the end", engine.num_free_blocks, engine.runner.pool.num_blocks)
    attempt(f"{what}: audit at the end", engine.audit)
    return [told[str(i)] for i in range(len(mix))], scores


def hear(what: str, engine: Engine, told: dict[str, RequestOutput]) -> list[RequestOutput]:
    """One step: each output is the last one of its request and one token more."""
    outputs = attempt(f"{what}: step", engine.step)
    for output in outputs:
        name = f"{what}, request {output.request_id}"
        before = told.get(output.request_id)
        ids = before.token_ids if before else []
        holds(f"{name}: nothing may come after its end", not (before and before.finished))
        agree(f"{name}: ids before the newest", output.token_ids[:-1], ids)
        agree(f"{name}: finished", output.finished, output.finish_reason is not None)
        told[output.request_id] = output
    return outputs


def run(engine: Engine, told: dict[str, RequestOutput] | None = None) -> dict[str, RequestOutput]:
    """The last output of each request."""
    told = {} if told is None else told
    for _ in range(500):
        if not engine.has_unfinished():
            break
        hear("until all have ended", engine, told)
    agree("requests after 500 steps", engine.has_unfinished(), False)
    return told


def check_mode(
    board: Scoreboard,
    model: Llama,
    mix: Mix,
    wanted: list,
    alone: list,
    mode: str,
) -> list[RequestOutput]:
    """Ids and scores of the greedy ones against HuggingFace, the others against Day 10."""
    settings = {"num_blocks": 48, "enable_prefix_caching": False} | MODES[mode]
    engine = attempt(mode, Engine, model, **settings)
    return check_served(board, engine, mix, wanted, alone, mode)


def check_served(
    board: Scoreboard, engine: Engine, mix: Mix, wanted: list, alone: list, mode: str
) -> list[RequestOutput]:
    """The same on an engine that is there."""
    mine, scores = serve(mode, engine, mix)
    for i, (ids, steps) in enumerate(wanted):
        name = f"request {i} {mode}"
        board.compare(None, "ids", name, *sure_ids(mine[i].token_ids, ids, steps))
        agree(f"{name}: number of ids", len(mine[i].token_ids), len(ids))
        agree(f"{name}: reason", mine[i].finish_reason, "length")
        rows, top = torch.stack(scores[str(i)]), steps.abs().max()
        board.compare(None, "scores of every step, of the largest", name, rows / top, steps / top)
    for i, right in enumerate(alone, len(wanted)):
        name, (prompt, _) = f"request {i} {mode}", mix[i]
        agree(f"{name}: ids", mine[i].token_ids, right.token_ids)
        agree(f"{name}: reason", mine[i].finish_reason, right.finish_reason)
        agree(f"{name}: prompt", mine[i].prompt_token_ids, prompt)
        same_logprobs(name, mine[i].logprobs, right.logprobs)
    return mine
