"""transformers' continuous batching on the same card: make bench-gpu runs it.

The same weights and counts as gpu_engine.py has, by transformers' defaults, and once more with CUDA
graphs, which it leaves out where attention wants a mask. Attention is torch's (`sdpa`): packages
with better kernels for it are not needed here, and would make it faster. In a process of its own,
which is ended when its time is over; what was measured until then is kept.
"""

import logging
import time

import torch
from bench_gpu import added, made_model, softly
from gpu_clock import ON_A_GPU, wait
from gpu_engine import LONGEST, NEW, PROMPT, REQUESTS, TOGETHER, their_model

from nanoserve.bench.workloads import Turn, workload

SHORT = 64  # tokens a text that are written first: they warm up, and tell how long NEW takes
TOO_LONG = 15.0  # seconds: where NEW tokens would take longer, the SHORT ones are what is told
POOL = {} if ON_A_GPU else {"num_blocks": 8, "max_batch_tokens": 64}  # its own choice on a GPU
ALL = 60.0  # seconds for nano-vllm's workload, and not one more


def wrote(theirs, asked: list[tuple[list[int], int]], within: float, **settings) -> dict:
    """Answers of exactly as many ids as asked; or, after `within` seconds, how many there are."""
    from transformers import ContinuousBatchingConfig, GenerationConfig
    from transformers.generation.continuous_batching.utils import WorkloadHints

    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
    most = max(n for _, n in asked)
    greedy = GenerationConfig(do_sample=False, max_new_tokens=most, eos_token_id=-1, pad_token_id=0)
    hints = WorkloadHints(max(len(ids) for ids, _ in asked), most, len(asked))
    with theirs.continuous_batching_context_manager(
        generation_config=greedy, timeout=20, workload_hints=hints,
        continuous_batching_config=ContinuousBatchingConfig(**POOL, **settings),
    ) as manager:  # fmt: skip
        wait()
        begin, got = time.perf_counter(), {}
        for i, (ids, n) in enumerate(asked):
            manager.add_request(ids, request_id=str(i), max_new_tokens=n)
        while len(got) < len(asked) and time.perf_counter() - begin < within:
            result = manager.get_result(timeout=1)
            if result is not None and result.is_finished():
                if result.error:
                    raise RuntimeError(result.error)
                got[int(result.request_id)] = len(result.generated_tokens)
            elif result is None and not manager.is_running():
                raise RuntimeError("its thread has ended")
        seconds = time.perf_counter() - begin
        for i in {*range(len(asked))} - got.keys():
            manager.cancel_request(str(i))
    if len(got) < len(asked):
        return {"not done after": round(seconds, 1), "texts done": len(got), "of": len(asked)}
    assert [got[i] for i in range(len(asked))] == [n for _, n in asked]
    return {"tok/s": round(sum(got.values()) / seconds, 1), "seconds": round(seconds, 4)}


def several(theirs, V: int, count: int, **settings) -> dict:
    """`count` texts at once, of NEW ids each where that takes no longer than it should."""
    short = SHORT if ON_A_GPU else 3

    def run(new: int) -> dict:
        ids = torch.randint(0, V, (count, PROMPT)).tolist()  # others each time
        told = {"new": new} | wrote(theirs, [(one, new) for one in ids], 3 * TOO_LONG, **settings)
        if "seconds" in told:
            told["ms a step"] = round(1e3 * told["seconds"] / new, 3)
        return told

    told = run(short)
    for new in (short, NEW) if ON_A_GPU else ():
        if told.get("ms a step", 1e3) * new < 1e3 * TOO_LONG:
            told = run(new)
    return told


def measure(model, found: dict, save) -> None:
    """Several at once, and nano-vllm's workload; `save` is called as soon as there is a number."""
    theirs, V = their_model(model), model.config.vocab_size
    torch.manual_seed(0)
    asked = [(Turn((1, 2, 3), 2),), (Turn((4,), 5),)]
    if ON_A_GPU:
        asked = workload("nano-vllm", REQUESTS, 0, LONGEST, V)
    asked = [([*turn.ids], turn.new) for (turn,) in asked]
    for name, settings in (("as it comes", {}), ("with graphs", {"use_cuda_graph": True})):
        told = found[name] = {}
        for count in TOGETHER if ON_A_GPU else (2,):
            told[count] = softly(lambda n=count, s=settings: several(theirs, V, n, **s))
            save()
    for name, settings in (("as it comes", {}), ("with graphs", {"use_cuda_graph": True})):
        found[name]["nano-vllm"] = softly(lambda s=settings: wrote(theirs, asked, ALL, **s))
        save()
    if ON_A_GPU:
        found["peak GiB"] = round(torch.cuda.max_memory_reserved() / 2**30, 2)


def main() -> None:
    """Adds its numbers to those that are there."""
    with torch.no_grad(), added("transformers", "continuous batching") as (found, save):
        measure(made_model(), found, save)


if __name__ == "__main__":
    main()
