"""What a server counts and times, under the names that vLLM uses.

Built in the book: day21. Edit there, then run book/tangle.py.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from nanoserve.engine.request import RequestOutput
from nanoserve.server.answer import News, Watch
from nanoserve.server.thread import ENDED
from nanoserve.server.worker import AsyncEngine

REASONS = ("stop", "length", "abort", "error")
STEPS = (1, 1.6, 2.5, 4, 6.3)  # of a decade: each 1.6 times the last

# Seconds, from 0.1 ms to an hour and three quarters.
BUCKETS = tuple(round(x * 10.0**k, 6) for k in range(-4, 4) for x in STEPS)


@dataclass
class Seen:
    """A request in flight: when it came, its tokens, the newest's time."""

    asked: float
    tokens: int = 0
    latest: float | None = None


class Series(Watch):
    """The numbers themselves, at 0, each with the model's name on it.

    They are in a registry of their own: two servers in one process do
    not count for each other. `clock` gives seconds, and never goes back.
    """

    def __init__(
        self,
        model: str,
        worker: AsyncEngine,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.model, self.clock = model, clock
        self.registry = CollectorRegistry()
        self.flying: dict[str, Seen] = {}
        self.gauges(worker)
        about = "Tokens of prompts that were read."
        self.read = self.make(Counter, "prompt_tokens", about)
        about = "Tokens that were written."
        self.written = self.make(Counter, "generation_tokens", about)
        about = "Times that a request had to give its blocks back."
        self.preempted = self.make(Counter, "num_preemptions", about)
        self.scheduler = worker.engine.scheduler
        self.known = self.scheduler.num_preemptions  # counted so far
        self.first = self.times("time_to_first_token", "to a first token")
        self.gap = self.times("inter_token_latency", "from token to token")
        self.whole = self.times("e2e_request_latency", "to the last token")
        about, label = "Requests that have ended.", ["finished_reason"]
        ended = self.make(Counter, "request_success", about, label)
        # All four at once: a rate is blind to a 1 out of nowhere.
        self.ended = {r: ended.labels(model, r) for r in REASONS}
        worker.thread.mail.watch = self

    def make(
        self,
        kind: type,
        name: str,
        about: str,
        labels: Sequence[str] = (),
        **buckets: Any,
    ) -> Any:
        """A metric of a kind; the caller fills `labels` in, if any."""
        names = ["model_name", *labels]
        mine = {"registry": self.registry} | buckets
        made = kind(f"vllm:{name}", about, names, **mine)
        return made if labels else made.labels(self.model)

    def times(self, name: str, what: str) -> Histogram:
        """A histogram of seconds."""
        about, buckets = f"Seconds {what}.", {"buckets": BUCKETS}
        return self.make(Histogram, f"{name}_seconds", about, **buckets)

    def gauges(self, worker: AsyncEngine) -> None:
        """What is so now: looked up when somebody asks."""

        def used() -> float:
            stats = worker.stats()
            return 1 - stats.free_blocks / stats.num_blocks

        about = "Requests that have a row."
        running = self.make(Gauge, "num_requests_running", about)
        running.set_function(lambda: worker.running)
        about = "Requests that wait for a row."
        waiting = self.make(Gauge, "num_requests_waiting", about)
        waiting.set_function(lambda: worker.waiting)
        about = "Part of the pool's blocks that somebody holds, 0 to 1."
        self.make(Gauge, "kv_cache_usage_perc", about).set_function(used)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)


class Metrics(Series):
    """Counts what an AsyncEngine is asked and tells, from now on."""

    def asked(self, name: str) -> None:
        """On the event loop: a request is let in."""
        self.flying[name] = Seen(self.clock())

    def told(self, news: dict[str, News]) -> None:
        """On the engine's thread: what a step has for each."""
        now, total = self.clock(), self.scheduler.num_preemptions
        self.preempted.inc(total - self.known)
        self.known = total
        for name, output in news.items():
            if name == ENDED:  # nobody steps any more
                for lost in [*self.flying]:
                    self.end(lost, "error", now)
            elif isinstance(output, Exception):
                self.end(name, "error", now)
            else:
                self.count(self.flying[name], output, now)
                if output.finished:
                    self.end(name, output.finish_reason, now)

    def count(self, seen: Seen, output: RequestOutput, now: float) -> None:
        """Tokens that are new: the first one, or the gap before it."""
        new = len(output.token_ids) - seen.tokens
        for _ in range(new):
            if seen.latest is None:
                self.first.observe(now - seen.asked)
                self.read.inc(len(output.prompt_token_ids))
            else:
                self.gap.observe(now - seen.latest)
            seen.latest = now
        self.written.inc(new)
        seen.tokens += new

    def end(self, name: str, reason: str, now: float) -> None:
        """A request is over."""
        seen = self.flying.pop(name)
        self.ended[reason].inc()
        if reason in ("stop", "length"):  # who is cut off is quick
            self.whole.observe(now - seen.asked)
