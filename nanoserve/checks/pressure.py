"""A pool that is too small, on paper: stops bounded and counted, aborts at every moment: Day 17."""

import random
from collections.abc import Callable

from nanoserve.checks.common import agree, holds
from nanoserve.checks.paper import LETTERS, Paper
from nanoserve.checks.schedules import arrive
from nanoserve.engine.request import Request
from nanoserve.sampling import SamplingParams

FOUR = ((5, 8), (6, 7), (3, 6), (7, 2))  # prompt and answer; the pool holds two and a half


def cramped_paper(seed: int) -> Paper:
    """Many at once in a pool for few, with aborts between and inside of steps; run to the end."""
    draw = random.Random(seed)
    size = draw.choice((1, 2, 3))
    paper = Paper(draw.randint(3, 8), size, draw.choice((3, 5, 9)), draw.choice((2, 6, 40)))
    left, ending = draw.randint(3, 9), draw.choice((0.0, 0.0, 0.1))

    def end_one() -> None:
        if paper.alive and draw.random() < ending:
            paper.abort(draw.choice(paper.alive))

    while left or paper.alive:
        while left and draw.random() < 0.7:
            arrive(paper, draw)
            left -= 1
        end_one()
        paper.step(end_one)
        holds(f"{paper.what}, seed {seed}: it must end", paper.steps < 5_000)
    check_end(paper)
    return paper


def check_end(paper: Paper) -> None:
    """Texts and blocks as Paper has it, and the scheduler's own count of stops."""
    paper.check_end()
    stops = sum(paper.stopped.values())
    agree(f"{paper.what}: num_preemptions", paper.scheduler.num_preemptions, stops)


def four() -> tuple[Paper, list[Request]]:
    """Four requests of which the youngest that run are stopped."""
    paper = Paper(num_blocks=6, size=4, rows=4, budget=16)
    params = [SamplingParams(max_tokens=new, seed=0) for _, new in FOUR]
    prompts = [[i % LETTERS] * prompt for i, (prompt, _) in enumerate(FOUR)]
    return paper, [paper.add(ids, p) for ids, p in zip(prompts, params, strict=True)]


def check_four() -> None:
    """By hand: who is stopped in which step, what is read again, and in which step it ends."""
    paper, requests = four()
    stopped, read = [], []
    while paper.alive:
        plan = paper.step()
        stopped.append("".join(r.request_id[1:] for r in plan.preempted))
        read.append([len(share.ids) for share in plan.shares])
    agree("who is stopped, by step", stopped, ["", "", "", "2", *[""] * (len(stopped) - 4)])
    wanted = [[5, 6, 3], [1, 1, 1], [1, 1, 1], *[[1, 1]] * 4, [1, 6], [1, 7], [1, 1]]
    agree("tokens read, by step and request", read, wanted)
    agree("requests that were stopped", [paper.stopped.get(r, 0) for r in requests], [0, 0, 1, 0])
    check_end(paper)


def aborted(moment: int, victim: int, inside: bool) -> int:
    """One of the four is ended at one moment, inside of a step or before it; how many stops."""
    paper, requests = four()

    def end() -> None:
        if requests[victim].finish_reason is None:
            paper.abort(requests[victim])

    act: Callable[[], None]
    while paper.alive:
        act = end if paper.steps == moment else lambda: None
        if not inside:
            act()
            act = lambda: None  # noqa: E731
        if paper.alive:
            paper.step(act)
        holds(f"{paper.what}: it must end", paper.steps < 99)
    check_end(paper)
    return paper.scheduler.num_preemptions


def check_pressure(rounds: int = 100) -> None:
    """All of it, from seed 0 on."""
    check_four()
    for moment in range(10):
        for victim in range(4):
            aborted(moment, victim, inside=True)
            aborted(moment, victim, inside=False)
    papers = [cramped_paper(seed) for seed in range(rounds)]
    stops = [max(paper.stopped.values(), default=0) for paper in papers]
    holds("some of these must be stopped more than once", max(stops) > 1, f"{stops}")
