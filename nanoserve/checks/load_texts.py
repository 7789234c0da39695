"""Under load as alone: ids over HTTP as the engine's and HuggingFace's; the counts. Day 21."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from nanoserve.bench.load import Heard, arrivals, body_of, offer
from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.generating import sure_ids, their_model
from nanoserve.checks.loops import on_a_loop
from nanoserve.checks.metrics_numbers import read
from nanoserve.checks.model import VARIANTS, VOCAB, make
from nanoserve.checks.model_loading import load
from nanoserve.checks.serving import mix_of
from nanoserve.checks.serving_mix import mix_of as texts_of
from nanoserve.checks.serving_mix import steps_of
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.engine.engine import Engine
from nanoserve.generate import generate
from nanoserve.model import Llama
from nanoserve.reference import transformers
from nanoserve.sampling import SamplingParams
from nanoserve.server.app import create_app

MODEL = "a-model"
CRAMPED = {"num_blocks": 7, "max_num_seqs": 4, "max_num_batched_tokens": 24}
SAID = [f.name for f in fields(SamplingParams) if f.name not in ("logprobs", "stop", "max_tokens")]


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[str]:
    """The address of a server on this loop, until the block ends."""
    app = create_app(engine, MODEL)
    quiet = {"port": 0, "log_level": "critical", "timeout_graceful_shutdown": 5}
    server = uvicorn.Server(uvicorn.Config(app, **quiet))
    task = asyncio.ensure_future(server.serve())
    try:
        while not server.started:
            holds("the server must start", not task.done())
            await asyncio.sleep(0.001)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


def wire(ids: Sequence[int], params: SamplingParams) -> dict[str, Any]:
    """A request of the mix, as a load test sends it."""
    said = {name: getattr(params, name) for name in SAID}
    said = {k: list(v) if isinstance(v, tuple) else v for k, v in said.items()}
    return body_of(MODEL, ids, params.max_tokens, **said)


def under_load(engine: Engine, mix: Any, rate: float) -> tuple[list[Heard], dict[str, Any]]:
    """What each client heard, and what /metrics says afterwards; two more are refused."""

    async def main() -> tuple[list[Heard], str]:
        bodies = [wire(*asked) for asked in mix]
        bodies += [wire(mix[0][0], SamplingParams(max_tokens=99_999)), {"model": MODEL}]
        async with serving(engine) as url:
            heard = await offer(url, bodies, arrivals(rate, len(bodies), 0), 60.0)
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                answer = await client.get("/metrics")
        kind = answer.headers["content-type"]
        holds("/metrics must be plain text", kind.startswith("text/plain"), kind)
        return heard, answer.text

    heard, text = on_a_loop("a load test", main, debug=False)
    *heard, refused, empty = heard
    agree("two that are refused", (refused.failure, empty.failure), ("status 400",) * 2)
    told = attempt("what /metrics says", read, text)
    check_counts(heard, told)
    stopped = float(engine.scheduler.num_preemptions)
    agree("preemptions", told["num_preemptions_total"], stopped)
    agree("free blocks afterwards", engine.num_free_blocks, engine.scheduler.blocks.num_blocks)
    engine.audit()
    return heard, told


def check_counts(heard: Sequence[Heard], told: dict[str, Any]) -> None:
    """The server's own numbers are those of its clients."""
    agree("failures", {h.failure for h in heard}, {""})
    new, count = sum(len(h.ids) for h in heard), len(heard)
    reasons = Counter(h.reason for h in heard)
    for reason in ("stop", "length", "abort", "error"):
        agree(f"ended: {reason}", told[f"request_success_total {reason}"], float(reasons[reason]))
    agree("tokens read", told["prompt_tokens_total"], float(sum(h.prompt_tokens for h in heard)))
    agree("tokens written", told["generation_tokens_total"], float(new))
    counts = {"time_to_first_token": count, "inter_token_latency": new - count}
    for name, wanted in (counts | {"e2e_request_latency": count}).items():
        agree(f"count of {name}", told[f"{name}_seconds_count"], float(wanted))
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        agree(f"{name} in the end", told[name], 0.0)
    # A client waits for what the server measures, and for the way there and back.
    for name, waits in (
        ("time_to_first_token", sum(h.first for h in heard)),
        ("e2e_request_latency", sum(h.whole for h in heard)),
    ):
        mine = told[f"{name}_seconds_sum"]
        holds(f"{name}, {mine:.4f} s, must be over 0 and under the clients' {waits:.4f} s",
              0 < mine < waits)  # fmt: skip


def check_made_load(board: Scoreboard) -> None:
    """Twelve requests on a made model in a cramped pool: greedy as HuggingFace, all as alone."""
    sizes = {"max_position_embeddings": 64, "num_hidden_layers": 1}
    theirs = make(VARIANTS[0] | sizes).eval()
    theirs.generation_config = transformers.GenerationConfig()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(Path(folder) / MADE_UP)
        model = load(Path(folder) / MADE_UP)
    mix = mix_of(VOCAB)
    engine = attempt("Engine", Engine, model, **CRAMPED)
    heard, _ = under_load(engine, mix, rate=400.0)
    for i, ((ids, params), mine) in enumerate(zip(mix, heard, strict=True)):
        right = generate(model, ids, params)
        agree(f"request {i}, under load and alone", mine.ids, right.token_ids)
        agree(f"its reason, its prompt {i}", (mine.reason, mine.prompt_tokens),
              (right.finish_reason, len(ids)))  # fmt: skip
        if not params.temperature:
            compare_ids(board, None, f"request {i}", theirs, ids, mine.ids)


def check_load(board: Scoreboard, path: Path) -> None:
    """Two real prompts at once, three tokens of each and four."""
    theirs = their_model(path)
    mix = texts_of(path, theirs.config.vocab_size)[:2]
    model = Llama.from_pretrained(path)  # nothing here is said in words
    engine = attempt("Engine", Engine, model, num_blocks=16, max_num_seqs=2)
    heard, _ = under_load(engine, mix, rate=200.0)
    for i, ((ids, params), mine) in enumerate(zip(mix, heard, strict=True)):
        agree(f"number of ids of prompt {i}", len(mine.ids), params.max_tokens)
        compare_ids(board, path, f"prompt {i}", theirs, ids, mine.ids)


def compare_ids(
    board: Scoreboard, path: Path | None, name: str, theirs: Any, prompt: list, mine: list
) -> None:
    """The ids against HuggingFace's greedy ones, up to a margin that rounding can close."""
    steps = steps_of(theirs, prompt, mine)
    best = steps.argmax(-1).tolist()
    board.compare(path, "ids under load", name, *sure_ids(mine, best, steps))
