"""Answers of AsyncEngine, many at once: those of each alone, whole and in pieces. Day 19."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.generating import sure_ids, their_model
from nanoserve.checks.loops import Watched, on_a_loop
from nanoserve.checks.model import VARIANTS, VOCAB, make
from nanoserve.checks.model_loading import load
from nanoserve.checks.serving import Mix
from nanoserve.checks.serving import mix_of as made_mix
from nanoserve.checks.serving_mix import mix_of, steps_of
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.engine.engine import Engine
from nanoserve.engine.request import RequestOutput
from nanoserve.generate import generate
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams
from nanoserve.server.worker import AsyncEngine

SETTINGS: dict[str, dict[str, Any]] = {
    "in company": {"num_blocks": 64},
    "in a cramped pool, in chunks": {
        "num_blocks": 14,
        "block_size": 5,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 13,
    },
}


def made_model() -> tuple[nn.Module, Llama]:
    """A made model of one layer, HuggingFace's and ours: most steps here are made to be counted."""
    sizes = {"max_position_embeddings": 64, "num_hidden_layers": 1}
    theirs = make(VARIANTS[0] | sizes).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(Path(folder) / MADE_UP)
        return theirs, load(Path(folder) / MADE_UP)


def answered(what: str, engine: Engine, mix: Mix) -> list[RequestOutput]:
    """The last output of each request of the mix, all at once through one AsyncEngine."""

    async def main() -> list[RequestOutput]:
        async with AsyncEngine(engine) as served:
            work = [read(served, what, i, *asked) for i, asked in enumerate(mix)]
            outputs = await asyncio.gather(*work)
            agree(f"{what}: those that run, and wait, at the end", at_rest(served), (0, 0))
        return outputs

    return on_a_loop(what, main)


def at_rest(served: AsyncEngine) -> tuple[int, int]:
    """Who runs and who waits."""
    return served.running, served.waiting


async def read(
    served: AsyncEngine, what: str, i: int, ids: Sequence[int], params: SamplingParams
) -> RequestOutput:
    """One answer, by a reader that is eager, slow or away until the end: as `i` says."""
    what = f"{what}, request {i}"
    answer = await served.submit(ids, params, f"request-{i}" if i % 2 else None)
    if i % 4 == 3:
        return await answer.last()
    told: list[RequestOutput] = []
    sent = ""
    async for output in answer:
        if told:
            check_next(what, told[-1], output)
        told.append(output)
        sent += output.text[len(sent) :]
        for _ in range(5 * (i % 4)):
            await asyncio.sleep(0)
    holds(f"{what}: there must be an answer", bool(told))
    ends = [output.finished for output in told]
    agree(f"{what}: finished, in each", ends, [False] * (len(ends) - 1) + [True])
    agree(f"{what}: request id", {t.request_id for t in told}, {answer.request_id})
    agree(f"{what}: after the last", [output async for output in answer], [])
    agree(f"{what}: pieces, joined", sent, told[-1].text)
    return told[-1]


def check_next(what: str, before: RequestOutput, output: RequestOutput) -> None:
    """An output is the one before it, and more."""
    n = len(before.token_ids)
    agree(f"{what}: the ids that were told before", output.token_ids[:n], before.token_ids)
    holds(f"{what}: an output must be newer than the last", len(output.token_ids) > n)


def compare_made(board: Scoreboard, theirs: nn.Module, model: Llama) -> dict[str, float]:
    """Twelve requests in two engines, against HuggingFace alone; four of them are drawn."""
    mix, margins = made_mix(VOCAB), []
    drawn = [generate(model, *asked).token_ids for asked in mix[8:]]
    for what, settings in SETTINGS.items():
        engine = Watched(model, **settings)
        outputs = answered(what, engine, mix)
        engine.check(what)
        margins += compare_ids(board, None, what, theirs, mix[:8], outputs[:8])
        mine = [output.token_ids for output in outputs[8:]]
        agree(f"{what}: ids that were drawn from seeds", mine, drawn)
    return {MADE_UP: min(margins)}


def compare_ids(
    board: Scoreboard, path: Path | None, what: str, theirs: nn.Module, mix: Mix, mine: list
) -> list[float]:
    """Greedy ids against HuggingFace's of each request alone; the smallest margin of each."""
    margins = []
    for i, ((prompt, params), output) in enumerate(zip(mix, mine, strict=True)):
        scores = steps_of(theirs, prompt, output.token_ids)
        two, ids = scores.topk(2), scores.argmax(-1).tolist()
        margins.append((two.values[:, 0] - two.values[:, 1]).min().item())
        board.compare(path, "ids", f"request {i} {what}", *sure_ids(output.token_ids, ids, scores))
        agree(f"request {i} {what}: number of ids", len(output.token_ids), params.max_tokens)
        agree(f"request {i} {what}: reason", output.finish_reason, "length")
    return margins


def compare_streams(board: Scoreboard, path: Path) -> dict[str, float]:
    """Two prompts of a checkpoint at once, against HuggingFace alone; texts in pieces."""
    theirs = their_model(path)
    mix = mix_of(path, theirs.config.vocab_size)[:2]
    engine = attempt(f"Engine({path.name})", Engine, path, num_blocks=32)
    outputs = answered("streamed", engine, mix)
    if engine.tokenizer is not None:
        for output in outputs:
            agree("a text in pieces", output.text, engine.tokenizer.decode(output.token_ids))
    return {path.name: min(compare_ids(board, path, "streamed", theirs, mix, outputs))}
