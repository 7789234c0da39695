"""The scheduler without a model: thousands of schedules, and every order of events in small."""

import itertools

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from nanoserve.checks import schedules
from nanoserve.checks.paper import LETTERS, Paper
from nanoserve.engine.blocks import BlockManager
from nanoserve.engine.request import Request
from nanoserve.engine.scheduler import Scheduler
from nanoserve.sampling import SamplingParams


@pytest.mark.parametrize("first", range(0, 3000, 500))
def test_random_schedules_end_with_the_right_texts(first):
    for seed in range(first, first + 500):
        schedules.random_schedule(seed)


def test_every_order_of_six_events_over_a_pool_of_four_blocks():
    assert schedules.check_orders(6) == 6888


def test_what_fits_the_pool_to_its_last_place_runs():
    schedules.check_room()


@pytest.mark.parametrize("rows", (1, 2, 3, 4, 7, 20))
def test_static_continuous_and_longest_first(rows):
    """Steps of the eight requests of Day 16, by the scheduler and by filling rows by hand."""
    lengths = [8, 64, 16, 16, 40, 8, 24, 56]
    for order in (lengths, sorted(lengths, reverse=True)):
        free = [0] * rows
        for n in order:
            free[free.index(min(free))] += n
        paper = Paper(num_blocks=99, size=16, rows=rows, budget=512)
        for n in order:
            paper.add([1, 2, 3], SamplingParams(max_tokens=n))
        while paper.alive:
            paper.step()
        paper.check_end()
        assert paper.steps == max(free)
        if rows == 4:
            assert paper.steps == (80 if order is lengths else 64)


def test_who_writes_gets_a_token_in_every_step_of_a_long_prompt():
    paper = Paper(num_blocks=200, size=4, rows=8, budget=11)
    writers = [paper.add([i], SamplingParams(max_tokens=50)) for i in range(4)]
    paper.step()
    for _ in range(3):
        paper.add([1] * 60, SamplingParams(max_tokens=3))
    for _ in range(30):
        plan = paper.step()
        assert [share.request for share in plan.sampling][:4] == writers


def test_the_front_of_the_queue_is_not_overtaken():
    """A large request waits for room; small ones behind it wait too, so that it gets some."""
    paper = Paper(num_blocks=4, size=2, rows=4, budget=99)
    paper.add([1] * 4, SamplingParams(max_tokens=4))
    large = paper.add([2] * 6, SamplingParams(max_tokens=2))
    small = paper.add([3], SamplingParams(max_tokens=1))
    first = paper.step()
    assert [share.request for share in first.shares] == paper.arrived[:1]
    while large.finish_reason is None:
        assert small.finish_reason is None or large.computed
        paper.step()
    while paper.alive:
        paper.step()
    paper.check_end()


def test_a_plan_that_was_never_run_is_planned_again():
    """A pass that failed changes nothing that counts: the next plan reads the same."""
    scheduler = Scheduler(BlockManager(8, 4), 2, 6)
    for name, n in (("a", 5), ("b", 9)):
        scheduler.add(Request(name, (1,) * n, SamplingParams(max_tokens=3)))

    def planned():
        return [
            (s.request.request_id, s.start, s.ids, s.samples) for s in scheduler.schedule().shares
        ]

    assert planned() == planned() == [("a", 0, (1,) * 5, True), ("b", 0, (1,), False)]


def test_another_number_of_ids_than_were_due_is_refused():
    scheduler = Scheduler(BlockManager(8, 4), 2, 6)
    scheduler.add(Request("a", (1, 2), SamplingParams(max_tokens=3)))
    plan = scheduler.schedule()
    for ids in ([], [1, 2]):
        with pytest.raises(ValueError):
            scheduler.update(plan, ids)
    assert scheduler.running[0].computed == 0


class Machine(RuleBasedStateMachine):
    """Arrivals, steps and aborts in any order; what fails is shrunk to its shortest form."""

    @initialize(
        blocks=st.integers(2, 8),
        size=st.integers(1, 4),
        rows=st.integers(1, 4),
        budget=st.integers(1, 9),
    )
    def begin(self, blocks, size, rows, budget):
        self.paper = Paper(blocks, size, rows, budget)
        self.letters = itertools.cycle(range(LETTERS))

    @rule(data=st.data())
    def arrive(self, data):
        room = self.paper.blocks.num_blocks * self.paper.size
        prompt = data.draw(st.integers(1, room))
        most = data.draw(st.integers(1, room + 1 - prompt))
        stops = tuple(data.draw(st.sets(st.integers(0, LETTERS - 1), max_size=2)))
        self.paper.add(
            [next(self.letters)] * prompt, SamplingParams(max_tokens=most, stop_token_ids=stops)
        )

    @rule(steps=st.integers(1, 4))
    def steps(self, steps):
        for _ in range(steps):
            self.paper.step()

    @precondition(lambda self: self.paper.alive)
    @rule(data=st.data())
    def abort(self, data):
        self.paper.abort(data.draw(st.sampled_from(self.paper.alive)))

    @precondition(lambda self: self.paper.alive)
    @rule(data=st.data())
    def abort_while_a_step_runs(self, data):
        victim = data.draw(st.sampled_from(self.paper.alive))
        self.paper.step(lambda: self.paper.abort(victim))

    def teardown(self):
        if hasattr(self, "paper"):
            while self.paper.alive:
                self.paper.step()
                assert self.paper.steps < 5000
            self.paper.check_end()


Machine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
)
TestMachine = Machine.TestCase
