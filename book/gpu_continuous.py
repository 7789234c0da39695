"""transformers' continuous batching on the same card: make bench-gpu runs it.

The same weights and counts as gpu_engine.py has, by transformers' defaults, and once more with CUDA
graphs, which it leaves out where attention wants a mask; nano-vllm's workload and the chat are run
with graphs alone. Attention is torch's (`sdpa`): packages with better kernels for it are not needed
here, and would make it faster. In a process of its own, which is ended when its time is over; what
was measured until then is kept.
"""

import contextlib
import logging
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import torch
from bench_gpu import added, made_model, softly
from gpu_clock import ON_A_GPU, wait
from gpu_engine import NEW, TOGETHER, numbers, quiet, workloads
from gpu_transformers import FEW, alike, their_model

from nanoserve.bench.clock import time_engine
from nanoserve.bench.workloads import Conversation

TOO_LONG = 25.0  # seconds of a run; what has taken longer than this is not run once more
POOL = {} if ON_A_GPU else {"num_blocks": 8, "max_batch_tokens": 64}  # its own choice on a GPU
ALL = 170.0  # seconds for nano-vllm's workload or the chat, and not one more


class Clocked:
    """Its manager as the book's clock wants an engine: see nanoserve/bench/clock.py."""

    def __init__(self, manager, within: float):
        self.manager, self.ended = manager, 0
        self.last = time.perf_counter() + within

    def add_request(self, name: str, ids: list[int], params) -> None:
        """Greedily, as many new ids as asked."""
        self.manager.add_request(ids, request_id=name, max_new_tokens=params.max_tokens)

    def step(self, only_ended: bool = True) -> list:
        """The next request that has ended. TimeoutError when the time is over."""
        while True:
            if time.perf_counter() > self.last:
                raise TimeoutError(f"{self.ended} answers were done when the time was over")
            told = self.manager.get_result(timeout=1)
            if told is None and not self.manager.is_running():
                raise RuntimeError("its thread has ended")
            if told is not None and told.error:
                raise RuntimeError(told.error)
            if told is not None and told.is_finished():
                break
        self.ended += 1
        return [
            SimpleNamespace(
                request_id=told.request_id, token_ids=list(told.generated_tokens), finished=True,
                num_cached_tokens=0,  # it does not say
            )
        ]  # fmt: skip

    def abort(self, name: str) -> None:
        """After an error."""
        self.manager.cancel_request(name)


@contextlib.contextmanager
def started(theirs, asked: list[Conversation], **settings) -> Iterator:
    """Its manager, told what will come: how long and how many."""
    from transformers import ContinuousBatchingConfig, GenerationConfig
    from transformers.generation.continuous_batching.utils import WorkloadHints

    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
    new = max(turn.new for turns in asked for turn in turns)
    total = max(sum(len(turn.ids) + turn.new for turn in turns) for turns in asked)
    greedy = GenerationConfig(do_sample=False, max_new_tokens=new, eos_token_id=-1, pad_token_id=0)
    with theirs.continuous_batching_context_manager(
        generation_config=greedy, timeout=20, workload_hints=WorkloadHints(total, new, len(asked)),
        continuous_batching_config=ContinuousBatchingConfig(**POOL, **settings),
    ) as manager:  # fmt: skip
        yield manager


def raced(theirs, asked: list[Conversation], within: float, **settings) -> dict:
    """By the book's clock, the second of two runs; graphs are recorded in the first.

    No times of ids: it is asked to tell of ends alone.
    """
    with started(theirs, asked, **settings) as manager:
        runs = []
        while len(runs) < 2 and (not runs or runs[0].seconds < TOO_LONG):
            now = other(asked, theirs.config.vocab_size)
            wait()
            runs.append(time_engine(Clocked(manager, within), now, 0.0, quiet, False))
    for turns, answers in zip(asked, runs[-1].answers, strict=True):
        assert [turn.new for turn in turns] == [len(ids) for ids in answers]
    found = {"runs": len(runs)} | numbers(runs[-1])
    del found["cached"]
    return found


def other(asked: list[Conversation], V: int) -> list[Conversation]:
    """Other ids, of which none was written before; what was alike stays alike."""
    key = secrets.randbelow(V)
    return [
        tuple(replace(turn, ids=tuple((i + key) % V for i in turn.ids)) for turn in turns)
        for turns in asked
    ]


def several(theirs, count: int, new: int, **settings) -> dict:
    """`count` texts at once, of `new` ids each."""
    asked = alike(count, new, theirs.config.vocab_size)
    found = raced(theirs, asked, ALL, **settings)
    return {"new a text": new, "ms a step": round(1e3 * found["seconds"] / new, 3)} | found


def measure(model, found: dict, save) -> None:
    """Several at once and whole workloads; `save` is called as soon as there is a number."""
    theirs, graphs = their_model(model), {"use_cuda_graph": True}
    told = found["with graphs"] = {}
    for count in TOGETHER if ON_A_GPU else (2,):
        new = NEW if ON_A_GPU else 3
        told[count] = softly(lambda n=count: several(theirs, n, new, **graphs))
        save()
    for name, asked in (workloads(model.config.vocab_size) if ON_A_GPU else {}).items():
        told[name] = softly(lambda a=asked: raced(theirs, a, ALL, **graphs))
        save()
    if ON_A_GPU:
        found["peak GiB"] = round(torch.cuda.max_memory_reserved() / 2**30, 2)
    told = found["as it comes"] = {}
    for count in TOGETHER if ON_A_GPU else (2,):
        new = FEW if ON_A_GPU else 3
        told[count] = softly(lambda n=count: several(theirs, n, new))
        save()


def main() -> None:
    """Adds its numbers to those that are there."""
    with torch.no_grad(), added("transformers", "continuous batching") as (found, save):
        measure(made_model(), found, save)


if __name__ == "__main__":
    main()
