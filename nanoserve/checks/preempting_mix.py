"""Real prompts in a pool that is too small, on a checkpoint, against HuggingFace alone: Day 17."""

from dataclasses import replace
from pathlib import Path

import torch

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.generating import sure_ids, their_model
from nanoserve.checks.generating_pieces import GREEDY, same_logprobs
from nanoserve.checks.preempting import PLAIN, streams
from nanoserve.checks.serving_mix import mix_of, steps_of
from nanoserve.comparison import Scoreboard
from nanoserve.engine.engine import Engine
from nanoserve.generate import generate

SETTINGS = PLAIN | {"block_size": 2, "num_blocks": 7, "max_num_batched_tokens": 12}
NEW = (4, 3)  # of the greedy ones
SEEDED = replace(GREEDY, temperature=1.0, top_p=0.95, seed=2, max_tokens=3, logprobs=1)


def compare_preempted(board: Scoreboard, path: Path) -> dict[str, float]:
    """Two greedy requests and a seeded one in too few blocks: ids, scores; the least margin."""
    theirs = their_model(path)
    prompts = [ids[:5] for ids, _ in mix_of(path, theirs.config.vocab_size)]
    mix = [(ids, replace(GREEDY, max_tokens=n)) for ids, n in zip(prompts, NEW, strict=False)]
    mix.append((prompts[1], SEEDED))
    engine = attempt(f"Engine({path})", Engine, path, **SETTINGS)
    heard, scores = streams("cramped", engine, mix)
    holds("somebody must be stopped", engine.scheduler.num_preemptions > 0)
    margins = []
    for i, (prompt, params) in enumerate(mix[:2]):
        name, ids = f"prompt {i}", heard[str(i)][-1].token_ids
        steps = steps_of(theirs, prompt, ids)
        two = steps.topk(2).values
        margins.append((two[:, 0] - two[:, 1]).min().item())
        board.compare(path, "ids", name, *sure_ids(ids, steps.argmax(-1).tolist(), steps))
        agree(f"{name}: number of ids", len(ids), params.max_tokens)
        rows, top = torch.stack(scores[str(i)]), steps.abs().max()
        board.compare(path, "scores of every step, of the largest", name, rows / top, steps / top)
    alone, last = generate(engine.model, *mix[2]), heard["2"][-1]
    agree("ids of the seeded one", last.token_ids, alone.token_ids)
    same_logprobs("the seeded one", last.logprobs, alone.logprobs)
    return {path.name: min(margins)}
