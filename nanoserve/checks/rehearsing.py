"""Rehearsals against a timetable worked out with plain numbers: Day 17.

`by_hand` knows no block, queue or request of the engine: a second way to the same numbers.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

from nanoserve.checks.common import agree, attempt, holds, must_raise
from nanoserve.engine.blocks import BlockManager
from nanoserve.engine.engine import Engine
from nanoserve.engine.rehearsal import Record, Wish, rehearse, watch
from nanoserve.engine.request import Request
from nanoserve.engine.scheduler import Scheduler
from nanoserve.sampling import SamplingParams


@dataclass(eq=False)
class Row:
    """A request as numbers: what is known, in the pool, held, and how far it ever came."""

    name: str
    known: int
    left: int
    computed: int = 0
    held: int = 0
    furthest: int = 0


@dataclass
class Timetable:
    """What `by_hand` finds, named as in Record."""

    held: list[int] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    stopped: list[list[str]] = field(default_factory=list)
    got: dict[str, list[int]] = field(default_factory=dict)
    again: int = 0


def by_hand(wishes: Sequence[Wish], blocks: int, size: int, rows: int, budget: int) -> Timetable:
    """The rule of Days 16 and 17 once more, in counts alone."""
    table, coming = Timetable(), sorted(enumerate(wishes), key=lambda one: (one[1].at, one[0]))
    runs, waits = [], []
    while coming or runs or waits:
        step, stopped = len(table.held), []
        while coming and coming[0][1].at <= step:
            number, wish = coming.pop(0)
            waits.append(Row(str(number), wish.prompt, wish.new))
        for row in list(runs):
            while row in runs and row.held * size < row.known:
                if sum(other.held for other in runs) < blocks:
                    row.held += 1
                else:
                    last = runs.pop()
                    last.held = last.computed = 0
                    waits.insert(0, last)
                    stopped.append(last.name)
        left, shares = budget, []
        for row in runs:
            shares.append((row, min(left, row.known - row.computed)))
            left -= shares[-1][1]
        while waits and len(runs) < rows and left:
            need = -(-waits[0].known // size)
            if sum(row.held for row in runs) + need > blocks:
                break
            row = waits.pop(0)
            row.held = need
            runs.append(row)
            shares.append((row, min(left, row.known)))
            left -= shares[-1][1]
        table.held.append(sum(row.held for row in runs))
        table.stopped.append(stopped)
        table.read.append(budget - left)
        for row, count in shares:
            table.again += max(0, min(row.furthest, row.computed + count) - row.computed)
            row.computed += count
            row.furthest = max(row.furthest, row.computed)
            if row.computed == row.known and count:
                row.known, row.left = row.known + 1, row.left - 1
                table.got.setdefault(row.name, []).append(step)
                if not row.left:
                    runs.remove(row)
    return table


def drawn(seed: int) -> tuple[list[Wish], dict[str, int]]:
    """Wishes that fit, and a pool that is too small for them as often as not."""
    draw = random.Random(seed)
    size, blocks = draw.choice((1, 2, 3, 4)), draw.randint(3, 9)
    settings = {"num_blocks": blocks, "block_size": size}
    settings |= {
        "max_num_seqs": draw.choice((2, 4, 9)),
        "max_num_batched_tokens": draw.choice((5, 9, 99)),
    }
    wishes = []
    for _ in range(draw.randint(2, 8)):
        prompt = draw.randint(1, size * blocks // 2)
        most = draw.randint(1, size * blocks + 1 - prompt)
        wishes.append(Wish(prompt, draw.randint(1, most), most, draw.choice((0, 0, 3, 7))))
    return wishes, settings


def check_rehearsals(rounds: int = 100) -> None:
    """Held, read, stopped, got and again of every step, by hand; and what is refused."""
    stopped, three = 0, [Wish(5, 8), Wish(6, 7), Wish(3, 6)]
    what = "the three of the page's beginning, in 6 blocks of 4"
    same(what, attempt(what, rehearse, three, 6, 4, 9, 16), by_hand(three, 6, 4, 9, 16))
    for seed in range(rounds):
        wishes, settings = drawn(seed)
        what = f"rehearsal {seed}, {settings}"
        record = attempt(what, rehearse, wishes, **settings)
        same(what, record, by_hand(wishes, *settings.values()))
        stopped += record.preemptions
    what = "some of these rehearsals must run out of blocks"
    holds(what, stopped > rounds // 2, f"{stopped} stops")
    check_roomy()
    check_watch()
    check_refused()


def same(what: str, record: Record, table: Timetable) -> None:
    """A record says what the timetable says: else the first step where they part, from 0 on."""
    for step in range(len(table.held)):
        for name in ("read", "held", "stopped"):
            mine, right = (getattr(one, name)[step : step + 1] for one in (record, table))
            agree(f"{what}: `{name}` of step {step}", mine, right)
    agree(f"{what}: steps", record.steps, len(table.held))
    for name in ("read", "held", "stopped", "again"):
        agree(f"{what}: `{name}`", getattr(record, name), getattr(table, name))
    agree(f"{what}: `got`, who", {*record.got}, {*table.got})
    for name, steps in table.got.items():
        agree(f"{what}: `got`, the steps of request {name}", record.got[name], steps)
    agree(f"{what}: peak", record.peak, max(table.held))
    agree(f"{what}: preemptions", record.preemptions, sum(map(len, table.stopped)))


def check_roomy() -> None:
    """Without a number of blocks nobody waits for one; with the peak alone nothing changes."""
    for seed in range(20):
        wishes, settings = drawn(seed)
        wishes = [wish._replace(most=None) for wish in wishes]  # the pool must hold `most`
        del settings["num_blocks"]
        roomy = rehearse(wishes, **settings)
        what = f"rehearsal {seed}, roomy"
        agree(f"{what}: preemptions, again", (roomy.preemptions, roomy.again), (0, 0))
        alone = rehearse(wishes, roomy.peak, **settings)
        agree(f"{what}: with its peak alone", alone, roomy)


def check_watch() -> None:
    """What is watched is told from then on, whoever calls, and a plan that was never run too."""
    mine, engines = (signature(one).parameters for one in (rehearse, Engine))
    for name in ("block_size", "max_num_seqs", "max_num_batched_tokens"):
        agree(f"{name}, as in an engine", mine[name].default, engines[name].default)
    scheduler = Scheduler(BlockManager(8, 4), 2, 6)
    scheduler.add(Request("a", (1,) * 5, SamplingParams(max_tokens=3)))
    scheduler.update(scheduler.schedule(), [1])
    record = watch(scheduler)
    agree("steps of a new record", (record.steps, record.peak, record.preemptions), (0, 0, 0))
    plan = scheduler.schedule()
    agree("tokens of the first step that is watched", (record.read, record.held), ([1], [2]))
    agree("tokens read again, where the record begins in mid-text", record.again, 0)
    scheduler.update(plan, [1])
    scheduler.update(scheduler.schedule(), [1])
    scheduler.add(Request("a", (1,) * 5, SamplingParams(max_tokens=3)))
    scheduler.schedule()
    agree("tokens read again, where a new request has an old one's id", record.again, 0)


def check_refused() -> None:
    """Each refusal names what is wrong, before a step is made."""
    good = [Wish(3, 2)]
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ([Wish(0, 2)], {}, "prompt"),
        ([Wish(3, 0)], {}, "new"),
        ([Wish(3, 4, 3)], {}, "most"),
        ([Wish(3, 4, 40)], {"num_blocks": 2}, "num_blocks"),
        ([Wish(3, 2, at=-1)], {}, "at"),
        ([*good, Wish(30, 40)], {"num_blocks": 2}, "num_blocks"),
        (good, {"num_blocks": 0}, "num_blocks"),
        (good, {"block_size": 0}, "block_size"),
        (good, {"max_num_seqs": 0}, "max_num_seqs"),
        (good, {"max_num_batched_tokens": 0}, "max_num_batched_tokens"),
    ]
    for wishes, settings, word in cases:
        said = must_raise(ValueError, f"{wishes}, {settings}", rehearse, wishes, **settings)
        holds(f"the refusal of {wishes}, {settings} must say {word}", word in said, said)
    agree("a rehearsal of nothing", rehearse([]).steps, 0)
    long = [Wish(1, 9)]
    agree("steps of nine tokens, 9 steps at most", rehearse(long, most_steps=9).steps, 9)
    said = must_raise(RuntimeError, "nine tokens, 8 steps at most", rehearse, long, most_steps=8)
    holds("what does not end must say after how many steps", "8" in said, said)
    shut = type("Shut", (Scheduler,), {"start": lambda self, request: False})
    what = "a `kind` that lets nobody in"
    must_raise(RuntimeError, what, rehearse, long, kind=shut, most_steps=9)
