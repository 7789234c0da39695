"""What /metrics says after a made life of a server, by Prometheus's own parser. Day 21."""

import inspect
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.load_numbers import MONOTONIC
from nanoserve.engine.request import RequestOutput
from nanoserve.server.answer import EngineError, Mailbox
from nanoserve.server.metrics import Metrics
from nanoserve.server.thread import ENDED, Stats

KINDS = {  # vLLM's names and kinds
    "num_requests_running": "gauge",
    "num_requests_waiting": "gauge",
    "kv_cache_usage_perc": "gauge",
    "prompt_tokens": "counter",
    "generation_tokens": "counter",
    "num_preemptions": "counter",
    "request_success": "counter",
    "time_to_first_token_seconds": "histogram",
    "inter_token_latency_seconds": "histogram",
    "e2e_request_latency_seconds": "histogram",
}


def read(text: bytes | str) -> dict[str, Any]:
    """Each sample's value by its name; that of a label by both; and the kinds."""
    text = text.decode() if isinstance(text, bytes) else text
    found: dict[str, Any] = {"kinds": {}}
    for family in text_string_to_metric_families(text):
        if family.name.endswith("_created"):
            continue
        holds(f"{family.name} must be one of vLLM's", family.name.startswith("vllm:"))
        found["kinds"][family.name.removeprefix("vllm:")] = family.type
        for sample in family.samples:
            name, labels = sample.name.removeprefix("vllm:"), dict(sample.labels)
            found.setdefault("model", labels.pop("model_name", None))
            found[" ".join([name, *labels.values()])] = sample.value
    return found


def worker_of(**now: Any) -> Any:
    """What Metrics sees of an AsyncEngine: counts, stats, and the mailbox's watch."""
    # Some of those who wait are still on their way to the engine, which knows of one.
    stats = Stats(running=3, waiting=1, free_blocks=6, num_blocks=8, steps=1, failures=0)
    mail = Mailbox(lambda: None)
    mail.loop = SimpleNamespace(call_soon_threadsafe=lambda wake: None)
    worker = SimpleNamespace(running=3, waiting=2, thread=SimpleNamespace(mail=mail), **now)
    worker.stats = lambda: stats
    worker.engine = SimpleNamespace(scheduler=SimpleNamespace(num_preemptions=4))
    return worker


def out(name: str, count: int, reason: str | None = None) -> dict[str, RequestOutput]:
    """A request's output after so many tokens."""
    prompt = list(range(5 if name == "a" else 2))
    ids = list(range(count))
    return {name: RequestOutput(name, prompt, ids, "", reason is not None, reason)}


def check_metrics() -> None:
    """A made life, told through the mailbox; a second server beside it; names, kinds, buckets."""
    now, worker = [0.0], worker_of()
    metrics = attempt("Metrics", Metrics, "a-model", worker, clock=lambda: now[0])
    other = attempt("a second server", Metrics, "a-model", worker_of())
    begun = read(attempt("text", metrics.text))
    agree("names and kinds", begun["kinds"], KINDS)
    agree("the model's name", begun["model"], "a-model")
    ended = {r: begun.get(f"request_success_total {r}") for r in ("stop", "length", "abort")}
    agree("ends before any, told as 0", ended, dict.fromkeys(ended, 0.0))
    live(now, worker, metrics)
    agree("requests that the books still hold", len(metrics.flying), 0)
    check_life(read(metrics.text()))
    agree("what a second server has written", read(other.text())["generation_tokens_total"], 0.0)
    check_gauges(worker, metrics)
    check_buckets(begun)
    clock = inspect.signature(Metrics).parameters["clock"].default
    holds("the clock of the metrics must not go back: time.perf_counter", clock in MONOTONIC)


def live(now: list[float], worker: Any, metrics: Metrics) -> None:
    """Six requests: two whole, one cut off, one that a step fails, one never begun, one lost."""
    mail = worker.thread.mail
    script = (
        (10.0, "a", None),
        (11.0, "b", None),
        (12.0, None, out("a", 1)),
        (12.5, None, out("a", 2) | out("b", 1)),
        (13.0, None, out("a", 3, "stop") | out("b", 3)),
        (14.0, "c", None),
        (15.0, None, out("b", 3, "abort") | out("c", 1, "length")),
        (16.0, "d", None),
        (17.0, None, {"d": EngineError("a step failed")}),
        (18.0, "e", None),
        (19.0, None, out("e", 0, "abort")),
        (20.0, "f", None),
        (21.0, None, out("f", 1)),
        (22.0, None, {ENDED: EngineError("the thread has ended")}),
    )
    for at, asked, told in script:
        now[0] = at
        worker.engine.scheduler.num_preemptions += at in (12.5, 13.0, 15.0)
        if asked:
            mail.watch.asked(asked)
        else:
            attempt(f"told of {[*told]}", mail.put, told)
        if at == 19.0:
            agree("requests in the books when all have ended", len(metrics.flying), 0)


def check_life(found: dict[str, Any]) -> None:
    """Counts and sums by hand."""
    agree("prompt_tokens_total, each once", found["prompt_tokens_total"], 5.0 + 2 + 2 + 2)
    agree("generation_tokens_total", found["generation_tokens_total"], 3.0 + 3 + 1 + 1)
    agree("preemptions since it began", found["num_preemptions_total"], 3.0)
    ends = [found[f"request_success_total {r}"] for r in ("stop", "length", "abort", "error")]
    agree("ends: stop, length, abort, error", ends, [1.0, 1.0, 2.0, 2.0])
    for name, count, total in (
        ("time_to_first_token", 4.0, 2.0 + 1.5 + 1.0 + 1.0),
        ("inter_token_latency", 4.0, 0.5 + 0.5 + 0.5 + 0.0),
        ("e2e_request_latency", 2.0, 3.0 + 1.0),
    ):
        mine = found[f"{name}_seconds_count"], found[f"{name}_seconds_sum"]
        agree(f"{name}: count and sum", mine, (count, total))


def check_gauges(worker: Any, metrics: Metrics) -> None:
    """What is so when it is asked, and not when it was last counted."""
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    agree("running, waiting, used", [read(metrics.text())[n] for n in names], [3.0, 2.0, 0.25])
    worker.running = worker.waiting = 0
    worker.stats = lambda: Stats(0, 0, free_blocks=8, num_blocks=8, steps=2, failures=0)
    agree("after all have gone", [read(metrics.text())[n] for n in names], [0.0, 0.0, 0.0])


def check_buckets(found: dict[str, Any]) -> None:
    """A percentile that is read from a histogram is known to within its bucket."""
    for name in KINDS:
        if not name.endswith("seconds"):
            continue
        edges = [key.split()[1] for key in found if key.startswith(f"{name}_bucket ")]
        *edges, last = map(float, edges)
        agree(f"{name}: the last edge", last, float("inf"))
        holds(f"{name}: the first edge must be 1 ms or less", edges[0] <= 1e-3)
        holds(f"{name}: the last one must be 10 minutes or more", edges[-1] >= 600)
        wide = max(b / a for a, b in pairwise(edges))
        holds(f"{name}: no edge may be over twice the one before", wide <= 2, f"{wide:.1f} times")
