"""Cramped = roomy = HuggingFace, token for token and piece for piece: Day 17.

T1 to T3 of the five tests for requests that are stopped and come back; then a soak, T4.
"""

import random
from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.engine_texts import PROMPTS, checkpoint
from nanoserve.checks.generating import sure_ids, their_greedy, their_model
from nanoserve.checks.generating_pieces import GREEDY, same_logprobs
from nanoserve.checks.serving import Scores, hear, poison, watched
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.engine.engine import Engine
from nanoserve.engine.request import RequestOutput
from nanoserve.generate import generate
from nanoserve.sampling import SamplingParams

Streams = dict[str, list[RequestOutput]]
Mix = list[tuple[list[int], SamplingParams]]
HOT = SamplingParams(temperature=1.3, ignore_eos=True)
PARAMS = (  # the first three are HuggingFace's to judge
    replace(GREEDY, max_tokens=12, logprobs=2),
    replace(GREEDY, max_tokens=15),
    replace(GREEDY, max_tokens=9),
    replace(HOT, seed=3, max_tokens=14, logprobs=1),
    replace(HOT, seed=3, max_tokens=11, repetition_penalty=1.4, frequency_penalty=0.6),
    replace(
        HOT, seed=8, max_tokens=13, top_k=40, min_tokens=6, stop_token_ids=tuple(range(0, 500, 3))
    ),
)
ARRIVALS = 30  # of the soak
PLAIN = {"enable_prefix_caching": False}  # what is read again is read
ROOMY = PLAIN | {"num_blocks": 64}
CRAMPED: dict[str, dict[str, Any]] = {
    "cramped": {"block_size": 4, "num_blocks": 10},
    "cramped, in chunks of 5": {"block_size": 2, "num_blocks": 18, "max_num_batched_tokens": 5},
    "in blocks of 1": {"block_size": 1, "num_blocks": 40},
    "the least that holds each": {"block_size": 3, "num_blocks": 10},
}


def mix_of(engine: Engine) -> Mix:
    """Six requests: texts of several scripts, the last with a stop text of its own."""
    ids = [engine.tokenizer.encode(text)[:12] for text in (*PROMPTS, "a | b")]
    return list(zip(ids, PARAMS, strict=True))


def streams(what: str, engine: Engine, mix: Mix) -> tuple[Streams, Scores]:
    """All outputs of each request, in order; books audited and free slots NaN before each step."""
    told: dict[str, RequestOutput] = {}
    heard, scores = defaultdict(list), watched(engine)
    for i, asked in enumerate(mix):
        attempt(f"{what}: add_request", engine.add_request, str(i), *asked)
    for _ in range(500):
        if not engine.has_unfinished():
            break
        attempt(f"{what}: audit", engine.audit)
        poison(engine)
        for output in hear(what, engine, told):
            heard[output.request_id].append(output)
    agree(f"{what}: requests after 500 steps", engine.has_unfinished(), False)
    agree(f"{what}: free blocks at the end", engine.num_free_blocks, engine.runner.pool.num_blocks)
    return heard, scores


def check_preempted(board: Scoreboard) -> dict[str, float]:
    """Every mode on a made checkpoint with a tokenizer; the smallest margin of the greedy ones."""
    with checkpoint(layers=2) as path:
        theirs, engine = their_model(path), Engine(path, **ROOMY)
        model, mix = engine.model, mix_of(engine)
        free = [generate(model, ids, params) for ids, params in mix]
        # Its own text has this stop: from there on it may say nothing.
        text = engine.tokenizer.decode(free[2].token_ids)
        mix.append((mix[2][0], replace(PARAMS[2], stop=(text[3:6],))))
        wanted = [their_greedy(theirs, ids, params.max_tokens, ()) for ids, params in mix[:3]]
        roomy, _ = streams("roomy", engine, mix)
        stops = {}
        for mode, settings in CRAMPED.items():
            engine = Engine(path, **PLAIN, **settings)
            heard, scores = streams(mode, engine, mix)
            stops[mode] = engine.scheduler.num_preemptions
            same_streams(mode, heard, roomy)
            for i, (ids, steps) in enumerate(wanted):
                name, mine = f"request {i} {mode}", heard[str(i)][-1]
                board.compare(None, "ids", name, *sure_ids(mine.token_ids, ids, steps))
                rows, top = torch.stack(scores[str(i)]), steps.abs().max()
                what = "scores of every step, of the largest"
                board.compare(None, what, name, rows / top, steps / top)
            for i, right in enumerate(free):
                name, mine = f"request {i} {mode}", heard[str(i)][-1]
                agree(f"{name}: ids", mine.token_ids, right.token_ids)
                agree(f"{name}: reason", mine.finish_reason, right.finish_reason)
                same_logprobs(name, mine.logprobs, right.logprobs)
        holds("in each cramped pool some must be stopped", min(stops.values()) > 1, f"{stops}")
        check_soak(path, mix, roomy)
    two = torch.cat([steps for _, steps in wanted]).topk(2).values
    return {MADE_UP: (two[:, 0] - two[:, 1]).min().item()}


def same_streams(what: str, mine: Streams, wanted: Streams) -> None:
    """Each request was told the same, one output after another."""
    for name, outputs in wanted.items():
        for field in (
            "text",
            "token_ids",
            "finish_reason",
            "prompt_token_ids",
            "num_cached_tokens",
        ):
            told = [getattr(output, field) for output in mine[name]]
            right = [getattr(output, field) for output in outputs]
            agree(f"{what}: request {name}, {field} of every output", told, right)


def check_soak(path, mix: Mix, roomy: Streams) -> None:
    """Arrivals and aborts between any two steps: who was left alone is told what it was alone."""
    engine = Engine(path, block_size=4, num_blocks=10, max_num_batched_tokens=9, **PLAIN)
    draw, heard, ended, halfway = random.Random(1), defaultdict(list), set(), 0
    due, left = 0, ARRIVALS
    while left or engine.has_unfinished():
        while left and draw.random() < 0.4:
            left -= 1
            name = f"{due} {draw.randrange(len(mix))}"
            engine.add_request(name, *mix[int(name.split()[1])])
            due += 1
        if engine.requests and draw.random() < 0.1:
            stopped = [r.request_id for r in engine.scheduler.waiting if r.output_ids]
            halfway += bool(stopped)
            name = draw.choice(stopped or list(engine.requests))
            agree(f"soak: abort of {name}", engine.abort(name), True)
            ended.add(name)
        attempt("soak: audit", engine.audit)
        poison(engine)
        for output in attempt("soak: step", engine.step):
            heard[output.request_id].append(output)
        holds("the soak must end", sum(map(len, heard.values())) < 5000)
    agree("soak: free blocks at the end", engine.num_free_blocks, 10)
    holds("the soak must stop many", engine.scheduler.num_preemptions > 9)
    holds("the soak must abort some that were stopped", halfway > 2, f"{halfway} of them")
    agree("soak: requests told of", len(heard), ARRIVALS)
    for name, outputs in heard.items():
        alone = roomy[name.split()[1]]
        if name in ended:
            last, before = outputs.pop(), [("", []), *((o.text, o.token_ids) for o in outputs)][-1]
            agree(f"soak: the end of {name}", last.finish_reason, "abort")
            agree(f"soak: what {name} had", (last.text, last.token_ids), before)
        texts = [(o.text, o.token_ids) for o in alone[: len(outputs)]]
        agree(f"soak: what {name} was told", [(o.text, o.token_ids) for o in outputs], texts)
        if name not in ended:
            agree(f"soak: outputs of {name}", len(outputs), len(alone))
