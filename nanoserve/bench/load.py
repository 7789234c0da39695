"""Asks a server as many people would, and says what they got.

Built in the book: day21. Edit there, then run book/tangle.py.
"""

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import httpx


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed, or NaN."""
    ranked = sorted(values)
    rank = max(1, math.ceil(percent * len(ranked) / 100))
    return ranked[rank - 1] if ranked else math.nan


def arrivals(rate: float, requests: int, seed: int) -> list[float]:
    """When requests are due, in seconds: `rate` a second, by chance.

    A Poisson process: nobody knows of anybody else, so the waits from
    one to the next are exponential.
    """
    drawn = random.Random(seed)
    gaps = (drawn.expovariate(rate) for _ in range(requests))
    return list(accumulate(gaps))


@dataclass
class Heard:
    """What a client got of a request, in seconds of one clock.

    It was `due`, and `sent` a little later. `times` has when each token
    of `ids` came, `failure` why there is no answer, if there is none.
    """

    due: float
    sent: float = math.nan
    ended: float = math.nan
    times: list[float] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    prompt_tokens: int = 0
    reason: str | None = None
    failure: str = ""

    @property
    def first(self) -> float:
        """Seconds to the first token; who has failed waits for ever."""
        return math.inf if self.failure else self.times[0] - self.due

    @property
    def whole(self) -> float:
        """Seconds to the last token, or for ever."""
        return math.inf if self.failure else self.times[-1] - self.due

    @property
    def gaps(self) -> list[float]:
        """Seconds from token to token; 0 where two came together."""
        return [b - a for a, b in pairwise(self.times)]

    @property
    def pace(self) -> float:
        """Seconds a token after the first one."""
        gaps = self.gaps
        return sum(gaps) / len(gaps) if gaps else 0.0


async def lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """The lines of a body; what is cut off at its end is none."""
    held = b""  # httpx would break lines at U+2028 too, in a text
    async for part in response.aiter_bytes():
        *whole, held = (held + part).split(b"\n")
        for line in whole:
            yield line


# What `ask` raises where a server says what none should.
ODD = (ValueError, LookupError, TypeError, AttributeError)


def hear(heard: Heard, line: bytes, now: float) -> None:
    """A line of the stream. One of ODD for what is none of a server's."""
    if not line.startswith(b"data:") or line.rstrip().endswith(b"[DONE]"):
        return
    chunk = json.loads(line[5:])
    if "error" in chunk:
        raise ValueError("error in the stream")
    for choice in chunk["choices"]:
        new = choice.get("token_ids") or []
        heard.ids += new
        heard.times += [now] * len(new)
        heard.reason = choice["finish_reason"]
    usage = chunk.get("usage") or {}
    heard.prompt_tokens += usage.get("prompt_tokens", 0)


async def ask(
    client: httpx.AsyncClient,
    body: dict[str, Any],
    heard: Heard,
    clock: Callable[[], float],
) -> None:
    """Send it, and note every token. ValueError: no whole answer."""
    heard.sent = clock()
    request = client.stream("POST", "/v1/completions", json=body)
    async with request as response:
        if response.status_code != 200:
            raise ValueError(f"status {response.status_code}")
        async for line in lines(response):
            hear(heard, line, clock())
    if heard.reason is None or not heard.ids:
        raise ValueError("cut short")


def connected(url: str, key: str) -> httpx.AsyncClient:
    """A client that is never in its own way: no proxy, no limits."""
    told = {"Authorization": f"Bearer {key}"} if key else {}
    # The default is 100 connections: the next request would wait.
    free = {"limits": httpx.Limits(max_connections=None), "timeout": None}
    return httpx.AsyncClient(base_url=url, headers=told, trust_env=False, **free)


async def offer(
    url: str,
    bodies: Sequence[dict[str, Any]],
    due: Sequence[float],
    limit: float,
    key: str = "",
    clock: Callable[[], float] = time.perf_counter,
) -> list[Heard]:
    """Each body, sent when it is due, whatever became of the others.

    `limit` is the seconds that a request may take; then it has failed.
    """
    async with connected(url, key) as client:
        start = clock()

        async def one(body: dict[str, Any], at: float) -> Heard:
            heard = Heard(start + at)
            await asyncio.sleep(heard.due - clock())
            try:
                work = ask(client, body, heard, clock)
                await asyncio.wait_for(work, limit)
            except (asyncio.TimeoutError, httpx.HTTPError) as error:
                heard.failure = type(error).__name__
            except ODD as error:
                heard.failure = str(error)
            heard.ended = clock()
            return heard

        return await asyncio.gather(*map(one, bodies, due))


def body_of(model: str, ids: Sequence[int], new: int, **more: Any) -> dict:
    """A request for exactly `new` tokens, as a stream that tells ids."""
    asked = {"model": model, "prompt": list(ids), "max_tokens": new}
    asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return asked | {"ignore_eos": True, "return_token_ids": True} | more


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """p50, p90 and p99; None where so many have no value."""
    found = {f"p{n}": percentile(values, n) for n in (50, 90, 99)}
    return {n: x if math.isfinite(x) else None for n, x in found.items()}


def report(heard: Sequence[Heard], first: float, pace: float) -> dict[str, Any]:
    """A load test in numbers, of everybody who was to be answered.

    Good is a request whose first token came within `first` seconds, and
    the others every `pace` seconds on average; goodput counts those.
    """
    seconds = max(h.ended for h in heard) - min(h.due for h in heard)
    answered = [h for h in heard if not h.failure]
    good = [h for h in answered if h.first <= first and h.pace <= pace]
    new = sum(len(h.ids) for h in heard)
    return {
        "requests": len(heard),
        "answered": len(answered),
        "failures": dict(Counter(h.failure for h in heard if h.failure)),
        "seconds": seconds,
        "late_seconds": max(h.sent - h.due for h in heard),
        "prompt_tokens": sum(h.prompt_tokens for h in heard),
        "new_tokens": new,
        "tokens_per_second": new / seconds,
        "answered_per_second": len(answered) / seconds,
        "goodput": len(good) / seconds,
        "first_token_seconds": percentiles([h.first for h in heard]),
        "gap_seconds": percentiles([g for h in heard for g in h.gaps]),
        "request_seconds": percentiles([h.whole for h in heard]),
    }
