"""The machine of Day 11: its arithmetic, what it measures, and whether its times come true."""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch.nn.functional import linear
from torch.utils.flop_counter import FlopCounterMode

from nanoserve.cache import KVCache
from nanoserve.checks.common import agree, attempt, holds
from nanoserve.cost import Cost, Machine, best_seconds, measure, read_bandwidth, step_cost
from nanoserve.model import Llama

STEP, PROMPT = (1, 1, 33), (1, 128, 128)  # texts, new tokens, and those with what came before


def check_machine() -> None:
    """Times of parts on a machine of round numbers, and where it bends."""
    machine = Machine(bandwidth=100.0, rate=1000.0)
    agree("ridge of 100 bytes and 1,000 operations a second", machine.ridge, 10.0)
    cases = (
        ({"a": Cost(0, 500)}, 5.0),
        ({"a": Cost(4000, 0)}, 4.0),
        ({"a": Cost(4000, 500)}, 5.0),
        ({"a": Cost(7000, 500)}, 7.0),
        ({"a": Cost(7000, 500), "b": Cost(0, 200), "c": Cost(9000, 100)}, 18.0),
    )
    for parts, wanted in cases:
        spent = float(attempt("seconds", machine.seconds, parts))
        agree(f"seconds at 100 bytes and 1,000 operations a second of {parts}", spent, wanted)


def check_measure() -> None:
    """`measure` counts what its work does: by torch's counter, and by the weights it is given."""
    runs = []

    def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        kinds.add((x.dtype, weight.dtype))
        written.add(bool(weight[0].any()))
        read[weight.data_ptr()] = weight.nbytes
        rows.add(x.numel() // x.shape[-1])
        return linear(x, weight)

    def seconds(work: Callable[[], object]) -> float:
        read.clear()
        rows.clear()
        with FlopCounterMode(display=False) as counter:
            work()
        runs.append((max(rows, default=0), sum(read.values()), counter.get_total_flops()))
        return 2.0

    read, rows, kinds, written = {}, set(), set(), set()
    machine = attempt("measure", measure, product, seconds)
    agree("what measure gives", type(machine), Machine)
    agree("works that measure times", len(runs), 2)
    holds(
        "each work of measure must multiply by the `product` it is given", all(r[0] for r in runs)
    )
    # Pages that were never written are all one page, which a cache holds.
    holds("weights that measure reads must have been written, and not be 0", written == {True})
    agree("dtypes that measure multiplies", kinds, {(torch.float32, torch.float32)})
    (few, nbytes, _), (many, _, flops) = sorted(runs)
    agree("rows of the work that reads", few, 1)
    holds("the work that reads must read more than a cache holds", nbytes >= 2**28, f"{nbytes}")
    holds("the work that multiplies must have many rows", many >= 128, f"{many}")
    agree("bandwidth, its work taken for 2 seconds", machine.bandwidth, nbytes / 2)
    agree("rate, its work taken for 2 seconds", machine.rate, flops / 2)
    check_reading()


def check_reading() -> None:
    """`read_bandwidth` adds up the bytes that it counts, more than a cache holds."""
    sums = []

    def seconds(work: Callable[[], torch.Tensor]) -> float:
        sums.append(work())
        return 4.0

    mine = attempt("read_bandwidth", read_bandwidth, seconds)
    agree("works that read_bandwidth times", len(sums), 1)
    # A sum of ones is their number, four bytes each.
    agree("bytes read in 4 seconds", mine * 4, 4 * sums[0].item())
    holds("read_bandwidth must read more than a cache holds", mine * 4 >= 2**28)


def check_clock() -> None:
    """The best of several runs, the first of all left out, by the clock that is given."""
    now, lengths = [0.0], iter((0.5, 3.0, 1.0, 2.0, 9.0, 9.0, 9.0))

    def work() -> None:
        now[0] += next(lengths)

    best = attempt("best_seconds", best_seconds, work, 3, lambda: now[0])
    agree("best of 3, 1 and 2 seconds after a warm-up of half a second", best, 1.0)
    agree("seconds spent on a warm-up and three rounds", now[0], 6.5)


def runs(model: Llama, batch: int, new: int, context: int) -> Callable[[], torch.Tensor]:
    """One pass of a model, again and again, as `step_cost` counts it."""
    cache = KVCache(model.config, batch, context)
    for held in (cache.k, cache.v):
        held.zero_()
    cache.advance(context - new)
    ids = torch.zeros(batch, new, dtype=torch.long)
    places = torch.arange(context - new, context)
    return lambda: model.logits(model(ids, places, cache.attends())[:, -1])


@torch.inference_mode()
def check_time(model: Llama, tries: int = 4) -> str:
    """Whether a step and a prompt take what is predicted, within a factor of two: a line each.

    On one thread, by the time that the thread itself worked, so that company on the machine does
    not count. AssertionError where a time is off by ten, which no machine explains.
    """
    threads, seconds = torch.get_num_threads(), partial(best_seconds, rounds=2)
    seconds = partial(seconds, clock=time.thread_time)
    said = {}
    torch.set_num_threads(1)
    try:
        machine = measure(seconds=seconds)
        for what, shape in (("a step", STEP), ("a prompt", PROMPT)):
            batch, new, context = shape
            parts = step_cost(model.config, batch=batch, new=new, context=context)
            predicted, spent = machine.seconds(parts), []
            work = runs(model, *shape)
            for _ in range(tries):  # until the noise is small enough
                spent.append(seconds(work) / predicted)
                if 0.5 <= min(spent) <= 2:
                    break
            off = min(spent)
            holds(f"{what} must take about what is predicted", 0.1 < off < 10, f"{off:.1f} times")
            said[what] = "yes" if 0.5 <= off <= 2 else "no"
    finally:
        torch.set_num_threads(threads)
    lines = (f"{what}, predicted within a factor of 2: {word}" for what, word in said.items())
    return "\n".join(lines)
