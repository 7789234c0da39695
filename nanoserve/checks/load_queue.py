"""The queue on paper against one that goes from event to event, and against formulas. Day 21."""

import random
from collections.abc import Sequence

from nanoserve.bench.load import arrivals
from nanoserve.bench.queueing import Server, closed_loop, open_loop
from nanoserve.checks.common import agree, attempt, holds

TICK = 1 / 8  # made times are multiples of it, so that sums are exact


def check_queue() -> None:
    """Made mixes with all settings; one server without a bound, by formula; both loops."""
    for seed in range(40):
        check_made(seed)
    check_formula()
    check_loops()


def slowly(due: Sequence[float], service: float, slots: int, bound: int | None, stall) -> list:
    """The answers' times, by going through time tick by tick."""
    ends, waiting, left, now = {}, [], {}, 0.0
    todo = list(enumerate(due))
    while todo or waiting or left:
        for i in [i for i, rest in left.items() if rest <= 0]:
            ends[i] = now
            del left[i]
        while waiting and len(left) < slots:
            left[waiting.pop(0)] = service
        while todo and todo[0][1] <= now:
            i, _ = todo.pop(0)
            if len(left) < slots:
                left[i] = service
            elif bound is None or len(waiting) < bound:
                waiting.append(i)
            else:
                ends[i] = None
        now += TICK
        if not stall[0] <= now - TICK < stall[1]:
            left = {i: rest - TICK for i, rest in left.items()}
    return [ends[i] for i in range(len(due))]


def check_made(seed: int) -> None:
    """One mix: slots, a bound or none, a stall or none."""
    drawn = random.Random(seed)
    due, at = [], 0.0
    for _ in range(40):
        at += drawn.choice((1, 1, 2, 3, 9)) * TICK
        due.append(at)
    service, slots = drawn.choice((1, 4, 9)) * TICK, drawn.choice((1, 1, 2, 3))
    bound = drawn.choice((None, 0, 1, 2, 5))
    since = drawn.choice((0, 3, 17, 40)) * TICK
    stall = (since, since + drawn.choice((0, 5, 30)) * TICK)
    server = attempt("Server", Server, service, slots, bound, stall)
    mine = attempt("open_loop", open_loop, server, due)
    what = f"{slots} slots of {service} s, bound {bound}, stall {stall}"
    agree(f"{what}: when they were asked", [at for at, _ in mine], due)
    wanted = slowly(due, service, slots, bound, stall)
    for (at, end), right in zip(mine, wanted, strict=True):  # the first that differs tells most
        agree(f"{what}: when the one of {at} s is answered", end, right)


def check_formula() -> None:
    """Poisson arrivals at one server: the mean time of M/D/1."""
    for load, within in ((0.5, 0.03), (0.8, 0.06)):
        times = open_loop(Server(1.0), arrivals(load, 20_000, 1))
        mean = sum(end - at for at, end in times) / len(times)
        wanted = 1 + load / (2 * (1 - load))
        holds(f"mean time at {load}: {mean:.2f} must be {wanted}", abs(mean / wanted - 1) < within)


def check_loops() -> None:
    """Closed: the next request waits for the last answer, so a stall is one sample."""
    times = attempt("closed_loop", closed_loop, Server(0.125, stall=(4.0, 9.0)), 1, 10.0)
    waits = [end - at for at, end in times]
    agree("asked in 10 s, 5 of which are a stall", len(times), 40)
    agree("of them slow", sum(wait > 0.125 for wait in waits), 1)
    agree("the slow one", max(waits), 5.125)
    times = closed_loop(Server(1.0, slots=2), 3, 4.0)
    wanted = [(0.0, 1.0)] * 2 + [(0.0, 2.0)] + [(1.0, 2.0), (1.0, 3.0), (2.0, 3.0), (2.0, 4.0)]
    agree("three clients of two slots", times[:7], wanted)
    refused = closed_loop(Server(1.0, bound=0), 2, 3.0)
    agree("one slot, two clients, no queue", [end for _, end in refused].count(None), 3)
