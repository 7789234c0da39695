"""The numbers of a load test, from times that are made up: no clock, no network. Day 21."""

import inspect
import json
import math
import random
import time
from typing import Any

import numpy as np

from nanoserve.bench.load import Heard, arrivals, body_of, hear, offer, percentile, report
from nanoserve.checks.common import agree, attempt, holds, must_raise

MONOTONIC = (time.perf_counter, time.monotonic)


def check_numbers() -> None:
    """Percentiles, arrivals, what is heard of a stream, and the report."""
    check_percentiles()
    check_arrivals()
    check_times()
    check_lines()
    check_report()
    check_bodies()


def check_percentiles() -> None:
    """Against numpy, of samples of every size from 1; infinities and none at all."""
    drawn = random.Random(1)
    for size in (1, 2, 3, 9, 10, 99, 100, 101, 200):
        values = [drawn.random() for _ in range(size)]
        before = list(values)
        for percent in (1, 50, 90, 95, 99, 100):
            mine = attempt("percentile", percentile, values, percent)
            wanted = float(np.percentile(values, percent, method="inverted_cdf"))
            agree(f"p{percent} of {size} values", float(mine), wanted)
        agree("the values, afterwards", values, before)
    slow = [1.0] * 98 + [math.inf] * 2  # two of a hundred have failed
    agree("p50, p98, p99", [percentile(slow, p) for p in (50, 98, 99)], [1.0, 1.0, math.inf])
    holds("p99 of nothing must be NaN", math.isnan(percentile([], 99)))


def check_arrivals() -> None:
    """As many as asked for, in order, the same for a seed; waits as chance has them."""
    due = attempt("arrivals", arrivals, 4.0, 4000, 3)
    agree("how many", len(due), 4000)
    holds("they must come in order, from 0 on", due == sorted(due) and due[0] > 0)
    agree("the same seed", arrivals(4.0, 4000, 3), due)
    holds("another seed must give others", arrivals(4.0, 5, 4) != due[:5])
    agree("fewer of them", arrivals(4.0, 5, 3), due[:5])
    waits = np.diff([0.0, *due])
    # Of an exponential wait the mean and the deviation are 1 / rate, and 1 in e is longer.
    found = map(float, (waits.mean(), waits.std(), (waits > 0.25).mean()))
    names, right = ("mean", "deviation", "share"), (0.25, 0.25, 1 / math.e)
    for what, mine, wanted in zip(names, found, right, strict=True):
        holds(f"waits: {what} {mine:.3f} must be {wanted:.3f}", abs(mine / wanted - 1) < 0.06)


def made(due: float, times: list[float], **more: Any) -> Heard:
    """A request that was sent 0.5 s late, and has heard tokens at these times."""
    ids = list(range(len(times)))
    heard = Heard(due, due + 0.5, times=list(times), ids=ids, prompt_tokens=3, **more)
    heard.ended = times[-1] if times else due + 9
    return heard


def check_times() -> None:
    """From when it was due, not sent; a gap for every token but the first."""
    heard = made(10.0, [12.0, 12.5, 12.5, 14.0])
    agree("seconds to a first token", heard.first, 2.0)
    agree("gaps", heard.gaps, [0.5, 0.0, 1.5])
    agree("seconds to the last", heard.whole, 4.0)
    holds("seconds a token must be 2/3", math.isclose(heard.pace, 2 / 3), str(heard.pace))
    one = made(1.0, [3.0])
    agree("of one token", (one.first, one.whole, one.gaps, float(one.pace)), (2.0, 2.0, [], 0.0))
    for times in ([], [2.0, 3.0]):
        lost = made(1.0, times, failure="status 429")
        agree("of a failure", (lost.first, lost.whole), (math.inf, math.inf))


def event(ids: list[int] | None, reason: str | None = None, **more: Any) -> bytes:
    """A line of a stream."""
    choice = {"index": 0, "text": "a b", "finish_reason": reason}
    choices = [choice | ({} if ids is None else {"token_ids": ids})]
    return b"data: " + json.dumps({"choices": choices, "usage": None} | more).encode()


def check_lines() -> None:
    """Tokens are counted by their ids, not by chunks, nor by words."""
    heard = Heard(0.0)
    said = [b"", b": a comment", event([7]), event([]), event([8, 9]), event(None)]
    said.append(event([4]).replace(b": ", b":", 1))  # the space is not needed
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 4}}
    said += [event([], "stop"), b"data: " + json.dumps(usage).encode(), b"data: [DONE]"]
    for now, line in enumerate(said):
        attempt(f"hear {line}", hear, heard, line, float(now))
    agree("ids", heard.ids, [7, 8, 9, 4])
    agree("when each came", heard.times, [2.0, 4.0, 4.0, 6.0])
    agree("reason, tokens of the prompt", (heard.reason, heard.prompt_tokens), ("stop", 5))
    for broken in (b"data: {", b'data: {"error": {"message": "out of it"}}'):
        must_raise(ValueError, f"a stream that says {broken}", hear, Heard(0.0), broken, 0.0)


def check_report() -> None:
    """Of ten requests, two of which fail, and one gets half of its answer."""
    heard = [made(i, [i + 1.0, i + 1.25, i + 1.5]) for i in range(7)]
    heard.append(made(7.0, [11.0, 11.25, 11.5]))  # late
    heard.append(made(8.0, [], failure="status 429"))
    heard.append(made(9.0, [10.0, 20.0], failure="TimeoutError"))
    heard[3].sent = heard[3].due + 0.75
    told = attempt("report", report, heard, 2.0, 0.5)
    agree("asked, answered", (told["requests"], told["answered"]), (10, 8))
    agree("failures", dict(told["failures"]), {"status 429": 1, "TimeoutError": 1})
    agree("tokens", (told["prompt_tokens"], told["new_tokens"]), (30, 26))
    agree("seconds, from the first that was due to the last end", told["seconds"], 20.0)
    rates = told["tokens_per_second"], told["answered_per_second"], told["goodput"]
    agree("rates: tokens, answers, goodput", rates, (26 / 20, 8 / 20, 7 / 20))
    agree("how late the client was, at worst", told["late_seconds"], 0.75)
    cuts = {"p50": 1.0, "p90": None, "p99": None}
    agree("to the first token, two being lost", told["first_token_seconds"], cuts)
    agree("to the last", told["request_seconds"], cuts | {"p50": 1.5})
    agree("gaps", told["gap_seconds"], {"p50": 0.25, "p90": 0.25, "p99": 10.0})
    slow = attempt("report", report, [made(0.0, [1.0, 3.0]), made(0.0, [1.0, 1.5])], 1.0, 0.5)
    agree("goodput of two, one with a slow second token", slow["goodput"], 1 / 3)
    json.dumps(told, allow_nan=False)


def check_bodies() -> None:
    """What is asked of a server; and clocks that do not go back."""
    body = attempt("body_of", body_of, "m", (5, 6), 7, temperature=0, seed=3)
    wanted = {"model": "m", "prompt": [5, 6], "max_tokens": 7, "temperature": 0, "seed": 3}
    wanted |= {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
    agree("a request's body", body, wanted | {"return_token_ids": True})
    clock = inspect.signature(offer).parameters["clock"].default
    holds("a load test's clock must not go back: time.perf_counter", clock in MONOTONIC)
