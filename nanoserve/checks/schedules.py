"""The scheduler without a model: random schedules, and in small every order of events. Day 16."""

import random
from collections.abc import Iterator

from nanoserve.checks.common import agree, attempt, holds, must_raise
from nanoserve.checks.paper import LETTERS, Paper
from nanoserve.engine.request import Request
from nanoserve.sampling import SamplingParams


def random_schedule(seed: int, caching: bool = False) -> Paper:
    """Arrivals, aborts and sizes drawn from a seed, and run until all have ended.

    Aborts come between two steps, and between a plan and its update.
    """
    draw = random.Random(seed)
    size, blocks = draw.choice((1, 2, 3, 16)), draw.choice((2, 4, 6, 9, 30))
    paper = Paper(blocks, size, draw.choice((1, 2, 3, 8)), draw.choice((1, 2, 5, 17, 64)), caching)
    busy, left = draw.choice((0.2, 0.5, 0.9)), draw.randint(1, 9)
    ending = draw.choice((0.0, 0.0, 0.05, 0.3))

    def end_one() -> None:
        if paper.alive and draw.random() < ending:
            paper.abort(draw.choice(paper.alive))

    while left or paper.alive:
        while left and draw.random() < busy:
            arrive(paper, draw)
            left -= 1
        end_one()
        paper.step(end_one)
        holds(f"{paper.what}, seed {seed}: it must end", paper.steps < 20_000)
    paper.check_end()
    return paper


def arrive(paper: Paper, draw: random.Random) -> Request:
    """A random request that fits, its prompt often one around a whole number of blocks."""
    room = paper.blocks.num_blocks * paper.size
    whole = paper.size * draw.randint(0, room // paper.size)
    length = draw.choice((1, 1, draw.randint(1, room), whole - 1, whole, whole + 1))
    length = max(1, min(room, length))
    most = draw.randint(1, min(room + 1 - length, 40))
    stops = tuple(draw.sample(range(LETTERS), draw.choice((0, 0, 1, 2))))
    params = SamplingParams(max_tokens=most, stop_token_ids=stops, seed=0)
    prompt, salt = [draw.randrange(LETTERS) for _ in range(length)], None
    if paper.hits and paper.arrived and draw.random() < 0.7:  # it begins as an earlier text
        earlier = draw.choice(paper.arrived)
        known = draw.choice((len(earlier.tokens), draw.randint(0, len(earlier.tokens))))
        prompt = (earlier.tokens[:known] + prompt)[:length]
        salt = draw.choice((earlier.cache_salt, earlier.cache_salt, None, "1", "2"))
    return attempt(f"{paper.what}: {length} ids, {most} new", paper.add, prompt, params, salt)


SMALL, LARGE = (2, 2), (5, 4)  # prompt and new tokens: one block or two, and the whole pool
EVENTS = ("small", "large", "step", "abort the oldest", "abort the youngest", "abort in a step")


def happens(paper: Paper, event: str) -> bool:
    """Let one event happen. False where there is nothing that it could happen to."""
    if event in ("small", "large"):
        length, most = SMALL if event == "small" else LARGE
        prompt = [len(paper.arrived) % LETTERS] * length
        paper.add(prompt, SamplingParams(max_tokens=most, seed=0))
        return True
    if not paper.alive:
        return False
    if event == "step":
        paper.step()
    elif event == "abort in a step":
        paper.step(lambda: paper.abort(paper.alive[-1]))
    else:
        paper.abort(paper.alive[0 if "oldest" in event else -1])
    return True


def orders(depth: int) -> Iterator[tuple[str, ...]]:
    """Every order of `depth` events that begins with an arrival."""

    def longer(so_far: tuple[str, ...], live: int) -> Iterator[tuple[str, ...]]:
        if len(so_far) == depth:
            yield so_far
            return
        for event in EVENTS:
            arrives = event in ("small", "large")
            if arrives or live > 0:
                yield from longer((*so_far, event), live + arrives - event.startswith("abort"))

    yield from longer((), 0)


def check_orders(depth: int) -> int:
    """Run every order of events over a pool of four blocks of two, to the end; how many."""
    count = 0
    for events in orders(depth):
        count += 1
        paper = Paper(num_blocks=4, size=2, rows=2, budget=3)
        for event in events:
            if not happens(paper, event):
                break
        while paper.alive:
            paper.step()
            holds(f"{events}: it must end", paper.steps < 500)
        paper.check_end()
    return count


def check_room() -> None:
    """What fits the pool to its last place runs, and one token more is refused at once."""
    for blocks, size, prompt in ((4, 2, 5), (3, 1, 1), (2, 16, 20), (5, 3, 15)):
        fits = blocks * size + 1 - prompt
        paper = Paper(blocks, size, rows=2, budget=4)
        params = SamplingParams(max_tokens=fits, seed=0)
        attempt(f"{paper.what}: {prompt} ids and {fits} new", paper.add, [0] * prompt, params)
        while paper.alive:
            paper.step()
        paper.check_end()
        more = SamplingParams(max_tokens=fits + 1, seed=0)
        what = f"{paper.what}: {prompt} ids and {fits + 1} new"
        said = must_raise(ValueError, what, paper.add, [0] * prompt, more)
        holds(f"{what}: the refusal must say what to change", "num_blocks" in said, said)
        agree(f"{what}: requests in the queue", len(paper.scheduler.waiting), 0)


def check_schedules(rounds: int = 150, depth: int = 4) -> None:
    """All of it, from seed 0 on."""
    check_room()
    check_orders(depth)
    papers = [random_schedule(seed) for seed in range(rounds)]
    stopped = sum(sum(paper.stopped.values()) for paper in papers)
    holds("some of these schedules must run out of blocks", stopped > 5, f"{stopped} did")


def check_found_is_not_read() -> None:
    """A step's budget goes to what is read: two that find all but a token fit into one step."""
    paper = Paper(num_blocks=16, size=2, rows=3, budget=4, caching=True)
    params, text = SamplingParams(max_tokens=1, seed=0), [i % LETTERS for i in range(8)]
    paper.add(text, params)
    while paper.alive:
        paper.step()
    what = "blocks of two that can be found, after one has read 8 tokens and ended"
    agree(what, len(paper.blocks.found), 4)
    for last in range(2):
        paper.add([*text, last], params)
    read = [len(share.ids) for share in paper.step().shares]
    agree("tokens that two read who find eight of nine, 4 tokens a step", read, [1, 1])
    paper.check_end()


def check_own_work_is_found() -> None:
    """Who is stopped and comes back at once finds all full blocks, its answer's too."""
    paper = Paper(num_blocks=8, size=2, rows=2, budget=9, caching=True)
    paper.add([0, 1, 2], SamplingParams(max_tokens=6, seed=0))
    for _ in range(4):
        paper.step()
    paper.scheduler.preempt()
    (share,) = paper.step().shares
    agree("where one of seven tokens reads on after a stop", share.start, 6)
    while paper.alive:
        paper.step()
    paper.check_end()


def check_cached_schedules(rounds: int = 80) -> None:
    """The same with a cache of prefixes, and texts that often begin alike: Day 18."""
    check_found_is_not_read()
    check_own_work_is_found()
    papers = [random_schedule(seed, caching=True) for seed in range(rounds)]
    stopped = sum(sum(paper.stopped.values()) for paper in papers)
    holds("some of these schedules must run out of blocks", stopped > 5, f"{stopped} did")
    found = sum(bool(request.cached) for paper in papers for request in paper.arrived)
    holds("some of these requests must find their beginning", found > 15, f"{found} did")
