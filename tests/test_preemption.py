"""A pool that is too small, beside what Day 17's comparison holds: more seeds, public reports."""

from collections import Counter

import pytest
from tiny import save_tiny

from nanoserve.checks import pressure, rehearsing
from nanoserve.engine.engine import Engine
from nanoserve.engine.rehearsal import Wish, rehearse, watch
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams

REPORTS = {  # where nothing ended, or as good as nothing: mixes like those that were told
    "https://github.com/inference-sim/inference-sim/issues/297": (
        [Wish(16, 32) for _ in range(60)],
        {"num_blocks": 4},
    ),
    "https://github.com/inference-sim/inference-sim/issues/529": (
        [Wish(10 + 13 * (i % 4), 60, at=2 * i) for i in range(40)],
        {"num_blocks": 7, "max_num_batched_tokens": 24},
    ),
    "https://github.com/inference-sim/inference-sim/issues/963": (
        [Wish(16, 49, at=i) for i in range(50)],
        {"num_blocks": 16},
    ),
    "https://github.com/vllm-project/vllm/issues/25538": (
        [Wish(30, 60), Wish(30, 60), Wish(100, 20), Wish(50, 30)],
        {"num_blocks": 9, "max_num_batched_tokens": 20},
    ),
}


def test_more_mixes_in_pools_for_two_or_three():
    stops = [sum(pressure.cramped_paper(seed).stopped.values()) for seed in range(100, 1500)]
    assert sum(stops) > 700


def test_more_rehearsals_by_hand():
    rehearsing.check_rehearsals(1500)


@pytest.mark.parametrize("report", REPORTS)
def test_what_did_not_end_elsewhere_ends_and_nobody_is_stopped_for_ever(report):
    wishes, settings = REPORTS[report]
    record = rehearse(wishes, **settings)
    assert [len(steps) for steps in record.got.values()] == [wish.new for wish in wishes]
    stops = Counter(name for names in record.stopped for name in names)
    assert all(count <= int(name) for name, count in stops.items()), f"{report}: {stops}"
    assert record.preemptions and max(stops.values()) <= 3
    # In every step the oldest reads on: no more steps than one alone after another would take.
    alone = [rehearse([wish._replace(at=0)], **settings).steps for wish in wishes]
    assert record.steps <= sum(alone) + wishes[-1].at


def test_the_engine_does_what_was_rehearsed(tmp_path):
    save_tiny(tmp_path)
    wishes = [Wish(5, 8), Wish(6, 7), Wish(3, 6), Wish(9, 5), Wish(2, 11)]
    settings = {"num_blocks": 6, "block_size": 4, "max_num_batched_tokens": 11}
    engine = Engine(Llama.from_pretrained(tmp_path), enable_prefix_caching=False, **settings)
    for i, wish in enumerate(wishes):
        params = SamplingParams(temperature=0, max_tokens=wish.new, ignore_eos=True)
        engine.add_request(str(i), [1 + i] * wish.prompt, params)
    record, outputs = watch(engine.scheduler), Counter()
    while engine.has_unfinished():
        outputs.update(output.request_id for output in engine.step())
    assert record == rehearse(wishes, **settings)
    assert engine.scheduler.num_preemptions == record.preemptions > 0
    assert outputs == {str(i): wish.new for i, wish in enumerate(wishes)}


def test_a_record_of_nothing_and_a_pool_that_holds_all():
    assert (rehearse([]).steps, rehearse([]).peak, rehearse([]).preemptions) == (0, 0, 0)
    late = rehearse([Wish(1, 1, at=4)])
    assert late.read == [0, 0, 0, 0, 1] and late.got == {"0": [4]}
