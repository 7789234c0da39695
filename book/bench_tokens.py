"""A token with a cache, or in a batch: the parts "cache", "rows" and "batch" of bench.py."""

import itertools
import statistics
import time
from pathlib import Path

import torch
from bench_model import THREADS, loader
from bench_peak import AnonymousPeak
from torch.utils.benchmark import Timer

TEXTS = (1, 2, 4, 8, 16, 32)  # of a batch
PROMPT, NEW, ROOM = 32, 64, 2048  # tokens: read, written, and of the cache that is weighed
ROWS = (1, 2, 4, 8, 16, 32, 64)  # that go through the bare matrices
FAST = "-fast"  # ends the name of ours with few rows in compiled loops, as it is run
ONEDNN = "-onednn"  # ends the name of a contestant that multiplies by oneDNN
STEPS = ("ours", "ours-onednn", "ours-fast", "hf-eager", "matrices", "matrices-onednn", "floor")


def writer(mode: str, path: Path):
    """A function that writes so many tokens after a seeded prompt, greedily, with a cache."""
    model = loader(mode, path)()
    seeded = torch.Generator().manual_seed(0)
    prompt = torch.randint(model.config.vocab_size, (1, PROMPT), generator=seeded)
    if mode.startswith("ours"):
        from nanoserve.cpu import make_fast
        from nanoserve.generate import generate
        from nanoserve.products import use_onednn
        from nanoserve.sampling import SamplingParams

        if mode.endswith(FAST):
            make_fast(model)
        else:
            use_onednn(model, mode.endswith(ONEDNN))

        def write(n):
            params = SamplingParams(temperature=0, max_tokens=n, ignore_eos=True)
            assert len(generate(model, prompt[0].tolist(), params).token_ids) == n
    else:
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig()

        def write(n):
            asked = GenerationConfig(do_sample=False, max_new_tokens=n, pad_token_id=0)
            seen = torch.ones_like(prompt)
            out = model.generate(prompt, attention_mask=seen, generation_config=asked)
            assert out.shape[1] == PROMPT + n

    return write


def measure_step(mode: str, path: str) -> dict:
    """Seconds a cached token: 64 after the first one, which the prompt's pass gives.

    "matrices" multiplies every matrix of the model with a vector and does nothing else; "floor"
    reads as many bytes as the weights have, in one tensor, and adds them up.
    """
    if not mode.startswith(("ours", "hf")):
        return {"token": measure_rows(mode, path, "1", str(torch.get_num_threads()))["pass"]}
    write, spent = writer(mode, Path(path)), {1: [], 1 + NEW: []}
    write(2)
    for _ in range(3):
        for n, seconds in spent.items():
            start = time.perf_counter()
            write(n)
            seconds.append(time.perf_counter() - start)
    first, all_of_them = map(statistics.median, spent.values())
    return {"token": (all_of_them - first) / NEW}


def measure_rows(mode: str, path: str, rows: str, threads: str) -> dict:
    """Seconds in which so many rows go through every matrix of the model, and nothing else.

    "matrices" by torch's linear, "matrices-onednn" by oneDNN; "floor" reads as many bytes.
    """
    from nanoserve.products import onednn_linear

    matrices = [m for m in loader("ours", Path(path))().parameters() if m.dim() == 2]
    if mode == "floor":
        work = torch.ones(sum(m.numel() for m in matrices)).sum
    else:
        product = onednn_linear if mode.endswith(ONEDNN) else torch.nn.functional.linear
        pairs = [(torch.randn(1, int(rows), m.shape[1]), m) for m in matrices]

        def work():
            for x, matrix in pairs:
                product(x, matrix)

    timer = Timer("f()", globals={"f": work}, num_threads=int(threads))
    return {"pass": timer.blocked_autorange(min_run_time=1).median}


def measure_cache(mode: str, path: str) -> dict:
    """The anonymous memory of a cache for 2,048 tokens, all written; "formula" computes it."""
    from nanoserve.cache import KVCache
    from nanoserve.config import ModelConfig

    config = ModelConfig.from_pretrained(path)
    if mode == "formula":
        numbers = config.num_key_value_heads * config.head_dim
        return {"anonymous": 2 * config.num_hidden_layers * numbers * ROOM * 4}
    with AnonymousPeak() as before:
        pass
    with AnonymousPeak() as during:
        cache = KVCache(config, 1, ROOM)
        for held in (cache.k, cache.v):
            held.fill_(1)
    return {"anonymous": during.peak - before.peak}


def batch_writer(mode: str, path: Path, seeded: torch.Generator):
    """A function of N that writes 16 tokens after each of N prompts of 8 to 40, all at once."""
    model = loader(mode, path)()
    lengths = torch.randint(8, 41, (max(TEXTS),), generator=seeded).tolist()
    vocabulary = model.config.vocab_size
    prompts = [torch.randint(vocabulary, (n,), generator=seeded).tolist() for n in lengths]
    if mode == "ours":
        from nanoserve.sampling import SamplingParams
        from nanoserve.together import generate_batch

        params = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True)
        return lambda N: generate_batch(model, prompts[:N], params)
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()
    asked = GenerationConfig(do_sample=False, max_new_tokens=16, pad_token_id=0)

    def write(N):
        widest = max(lengths[:N])
        ids = torch.tensor([[0] * (widest - len(p)) + p for p in prompts[:N]])
        seen = torch.tensor([[0] * (widest - n) + [1] * n for n in lengths[:N]])
        out = model.generate(ids, attention_mask=seen, generation_config=asked)
        assert out.shape[1] == widest + 16

    return write


def measure_batch(mode: str, path: str) -> dict:
    """New tokens a second, by the rows of a batch: ours packed, theirs padded on the left."""
    write, found = batch_writer(mode, Path(path), torch.Generator().manual_seed(0)), {}
    write(2)
    for N in TEXTS:
        start = time.perf_counter()
        write(N)
        found[str(N)] = 16 * N / (time.perf_counter() - start)
    return found


def bench_cache(turns, rounds: int, path: Path) -> dict:
    """A token with a cache, and the cache's memory: contestant -> field -> numbers."""
    return {
        "step": turns("step", STEPS, rounds, path),
        "memory": turns("cache", ("ours", "formula"), rounds, path),
    }


def bench_rows(turns, rounds: int, path: Path) -> dict:
    """Threads and rows -> contestant -> field -> numbers."""
    contestants, found = ("matrices", "matrices-onednn", "floor"), {}
    for threads, rows in itertools.product(THREADS, ROWS):
        key = f"{threads} thread{'s' * (threads > 1)}, {rows} row{'s' * (rows > 1)}"
        found[key] = turns("rows", contestants, rounds, path, rows, threads)
    return found


def bench_batch(turns, rounds: int, path: Path) -> dict:
    """Tokens a second: contestant -> rows of the batch -> numbers."""
    return turns("batch", ("ours", "hf-eager"), rounds, path)


def rows(results: dict, row):
    """Their rows in the table."""
    if "cache" in results:
        yield row("the cache, a token at B 1", results["cache"]["step"], "token", "ms", 1e3)
        title = "the cache, memory for 2,048 tokens"
        yield row(title, results["cache"]["memory"], "anonymous", "MB", 1e-6)
    for key, found in results.get("rows", {}).items():
        yield row(f"the matrices, {key}", found, "pass", "ms", 1e3)
    for n in next(iter(results.get("batch", {}).values()), ()):
        title = f"a batch of {n}"
        yield row(title, results["batch"], n, "tokens/s", 1)
