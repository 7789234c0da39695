"""The block manager against a plain model: random operations, shrunk where one fails."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run

from nanoserve.checks.block_orders import Plain, apply, check_refused
from nanoserve.engine.blocks import BlockManager

SETTINGS = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def machine(make: type) -> type:
    """A machine that does everything to a manager of class `make`, and to the model."""

    class Blocks(RuleBasedStateMachine):
        @initialize(num_blocks=st.integers(1, 12), block_size=st.integers(1, 5))
        def begin(self, num_blocks, block_size):
            self.both = make(num_blocks, block_size), Plain(num_blocks, block_size)

        @rule(name=st.sampled_from("ABCD"), tokens=st.integers(0, 70))
        def grow(self, name, tokens):
            apply(*self.both, ("grow", name, tokens))

        @rule(name=st.sampled_from("ABCD"), count=st.integers(0, 13))
        def allocate(self, name, count):
            apply(*self.both, ("allocate", name, count))

        @rule(name=st.sampled_from("ABCD"), start=st.integers(0, 3))
        def free(self, name, start):
            apply(*self.both, ("free", name, start))

        @precondition(lambda self: not all(map(self.both[1].of, "ABCD")))
        @rule(data=st.data())
        def touch(self, data):
            new = data.draw(st.sampled_from([n for n in "ABCD" if not self.both[1].of(n)]))
            blocks = st.lists(st.integers(0, self.both[0].num_blocks - 1), unique=True)
            apply(*self.both, ("touch", new, tuple(data.draw(blocks))))

        @rule()
        def refuse(self):
            check_refused(*self.both)

    return Blocks


def test_the_manager_does_what_the_model_does():
    run(machine(BlockManager), settings=SETTINGS)


def test_a_manager_that_loses_the_third_block_is_found():
    class Loses(BlockManager):
        def free(self, table):
            super().free(table[:2])

    with pytest.raises(AssertionError, match=r"after .*free"):
        # Not made smaller: that takes half a minute, and is for a person to read.
        run(machine(Loses), settings=settings(SETTINGS, phases=[Phase.generate]))
