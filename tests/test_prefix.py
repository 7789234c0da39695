"""The prefix cache without a model: thousands of schedules, long random books, public reports."""

import random

import pytest

from nanoserve.checks import prefix_books, schedules
from nanoserve.checks.paper import Paper
from nanoserve.engine.prefix import CachingScheduler, Prefix, PrefixCache, beginning
from nanoserve.engine.request import Request
from nanoserve.sampling import SamplingParams


@pytest.mark.parametrize("first", range(0, 1000, 250))
def test_random_schedules_find_what_is_there_and_end_with_the_right_texts(first):
    for seed in range(first, first + 250):
        schedules.random_schedule(seed, caching=True)


@pytest.mark.parametrize("bits", ("all", "one"))
def test_long_random_books_agree_with_texts_that_are_spelled_out(bits):
    function = prefix_books.one_bit if bits == "one" else prefix_books.module.chain_hash
    with prefix_books.hashed(function):
        sizes = (4, 1), (6, 2), (9, 3), (30, 2), (1, 4), (2, 1)
        for seed, (num_blocks, size) in enumerate(sizes):
            prefix_books.check_random(num_blocks, size, 700, 100 + seed)


def test_tokens_decide_and_not_their_digits_or_kinds():
    """vllm 12621, 44701: keys that run together, and a salt that is like a token."""
    first = beginning(None)
    assert Prefix(first, (1, 23)) != Prefix(first, (12, 3))
    assert Prefix(first, (1,)) != beginning("1") != Prefix(first, ("1",))
    assert Prefix(beginning("1"), (2,)) != Prefix(Prefix(first, (1,)), (2,))
    assert Prefix(first, (1, 2)) == Prefix(beginning(None), [1, 2]) != "a text"


def test_a_chain_of_thousands_is_compared_and_forgotten_without_recursion():
    chains = []
    for _ in range(2):
        prefix = beginning(None)
        for i in range(50_000):
            prefix = Prefix(prefix, (i,))
        chains.append(prefix)
    assert chains[0] == chains[1] and hash(chains[0]) == hash(chains[1])
    del chains, prefix


def run(scheduler, text, new=1, salt=None):
    """One request alone, to its end."""
    params = SamplingParams(max_tokens=new, seed=0)
    request = Request("one", tuple(text), params, salt)
    scheduler.add(request)
    while request.finish_reason is None:
        plan = scheduler.schedule()
        scheduler.update(plan, [1] * len(plan.sampling))
    return request


def test_a_request_that_was_refused_room_leaves_nothing_behind():
    """vllm 11565, 6849: hits touched, or counted as free, before the room is sure."""
    scheduler = CachingScheduler(PrefixCache(6, 2), 4, 64)
    run(scheduler, range(10, 16))
    running = Request("runs", (1,) * 6, SamplingParams(max_tokens=1, seed=0))
    waits = Request("waits", (*range(10, 16), *range(5)), SamplingParams(max_tokens=1, seed=0))
    for request in (running, waits):
        scheduler.add(request)
    before = [*scheduler.blocks.references]
    plan = scheduler.schedule()
    assert [share.request for share in plan.shares] == [running]
    assert waits.table == [] and waits.computed == 0 and waits.cached is None
    held = [a - b for a, b in zip(scheduler.blocks.references, before, strict=True)]
    assert sum(held) == len(running.table)
    scheduler.blocks.audit([running.table])


def test_who_is_preempted_finds_its_own_work_again_and_it_does_not_count_as_cached():
    """nano-vllm 211, vllm 17305."""
    paper = Paper(num_blocks=7, size=2, rows=2, budget=64, caching=True)
    for letter in (1, 2):
        paper.add([letter] * 5, SamplingParams(max_tokens=6, seed=0))
    read, stopped = 0, 0
    while paper.alive:
        plan = paper.step()
        stopped += len(plan.preempted)
        read += sum(len(share.ids) for share in plan.shares)
    paper.check_end()
    assert stopped == 1 and [r.cached for r in paper.arrived] == [0, 0]
    assert read < 2 * 10 + 5  # a block and a little more is read again, not all


def test_hits_survive_aborts_at_every_moment():
    """mini-sglang 111, vllm 33377."""
    for moment in range(8):
        paper = Paper(num_blocks=9, size=2, rows=3, budget=5, caching=True)
        draw = random.Random(moment)
        for _ in range(3):
            paper.add([3] * 7, SamplingParams(max_tokens=4, seed=0))
        for _ in range(moment):
            if paper.alive:
                paper.step()
        for request in list(paper.alive):
            if draw.random() < 0.5:
                paper.abort(request)
        while paper.alive:
            paper.step()
        paper.check_end()


def test_new_blocks_evict_the_longest_free_text_first():
    """llm-d-inference-sim 704: a beginning is the last that is lost."""
    scheduler = CachingScheduler(PrefixCache(6, 2), 4, 64)
    for start in (10, 20):
        run(scheduler, range(start, start + 6))
    run(scheduler, range(30, 34))  # takes two blocks
    cache = scheduler.blocks
    hits = [len(cache.match([*range(start, start + 7)])) for start in (10, 20, 30)]
    assert hits == [1, 3, 2]
