"""The engine on a GPU with whole workloads: for bench_gpu.py."""

import gc
import statistics
import time

import torch
from gpu_clock import ON_A_GPU, wait

from nanoserve.bench.clock import time_engine
from nanoserve.bench.workloads import Conversation, Turn, workload
from nanoserve.engine.gpu import GPUEngine
from nanoserve.model import Llama

REQUESTS, LONGEST = 256, 1024  # nano-vllm's workload, its very ids
PROMPT, NEW = 32, 512
TOGETHER = (1, 8, 32, 128)
READ = 4096  # tokens of the prompt whose first token is waited for


def quiet(new: int) -> None:
    """No progress bar."""


def numbers(run) -> dict:
    """What a run tells."""
    found = {"tok/s": round(run.rate, 1), "seconds": round(run.seconds, 4), "new": run.new_tokens}
    found |= {"prompt": run.prompt_tokens, "cached": run.cached_tokens}
    if run.first:
        found["ttft ms"] = round(1e3 * statistics.median(run.first), 3)
    return found


def workloads(V: int) -> dict[str, list[Conversation]]:
    """What all are asked: nano-vllm's very requests, and 256 messages of a chat."""
    return {
        "nano-vllm": workload("nano-vllm", REQUESTS, 0, LONGEST, V),
        "chat": workload("chat", REQUESTS, 0, LONGEST, V),
    }


def engine(model: Llama, found: dict) -> None:
    """nano-vllm's workload, several at once, a chat, and a long prompt's first token."""
    if not ON_A_GPU:
        return
    V = model.config.vocab_size
    begin = time.perf_counter()
    ours = GPUEngine(model, max_model_len=8192, enable_prefix_caching=False)
    wait()
    found["seconds to start"] = round(time.perf_counter() - begin, 2)
    free, total = torch.cuda.mem_get_info()
    found["GiB when started"] = {
        "allocated": round(torch.cuda.memory_allocated() / 2**30, 2),
        "reserved": round(torch.cuda.memory_reserved() / 2**30, 2),
        "free": round(free / 2**30, 2),
        "total": round(total / 2**30, 2),
    }
    asked, talk = workloads(V).values()
    time_engine(ours, workload("nano-vllm", 8, 1, LONGEST, V), 0.6, quiet, False)  # warm
    found["nano-vllm"] = [numbers(time_engine(ours, asked, 0.6, quiet, False)) for _ in "abc"]
    first = [(Turn(c[0].ids, 1),) for c in asked]
    found["prompts of nano-vllm"] = numbers(time_engine(ours, first, 0.6, quiet, False))
    made = torch.Generator().manual_seed(0)

    def prompt(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, V, (n,), generator=made).tolist())

    found["together"] = {}
    for count in TOGETHER:
        texts = [(Turn(prompt(PROMPT), NEW),) for _ in range(count)]
        runs = [time_engine(ours, texts, 0.0, quiet) for _ in "ab"]
        found["together"][count] = numbers(runs[1])
        found["together"][count]["same ids twice"] = runs[0].answers == runs[1].answers
    texts = [[(Turn(prompt(READ), 1),)] for _ in range(5)]
    found["ttft"] = [numbers(time_engine(ours, one, 0.0, quiet))["ttft ms"] for one in texts]
    ours.audit()
    ours.runner.graphs.graphs, ours.runner.reads.graphs = {}, {}
    found["nano-vllm, no graphs"] = numbers(time_engine(ours, asked, 0.6, quiet, False))
    ours.audit()
    del ours
    give_back()
    found["chat"] = {}
    for caching in (True, False):
        ours = GPUEngine(model, max_model_len=8192, enable_prefix_caching=caching)
        for seed in (1, 2):  # other conversations: nothing of them is found again
            time_engine(ours, workload("chat", REQUESTS, seed, LONGEST, V), 0.0, quiet)
        name = "prefix caching" if caching else "none"
        found["chat"][name] = numbers(time_engine(ours, talk, 0.0, quiet))
        del ours
        give_back()
    found["peak GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)


def give_back() -> None:
    """The memory of engines that are gone."""
    gc.collect()
    torch.cuda.empty_cache()
