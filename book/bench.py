"""How fast, and in how much memory, beside transformers: make bench.

Contestants take turns, so that a busy minute hurts all of them alike; memory is measured in fresh
processes. Prints a table of medians, spreads and ratios, and writes every number to bench.json,
which the page "How fast is plain?" shows. Takes about an hour on two cores; some parts alone can
be measured again, and the others stay as they are.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

# The book lets waiting threads sleep, so that many programs share the cores. What is measured
# here has the machine to itself: threads that spin are how people run it, on both sides alike.
os.environ.pop("OMP_WAIT_POLICY", None)

import bench_engine
import bench_server
import torch
from torch.utils.benchmark import Timer

from nanoserve.checkpoints import DEFAULT, TWIN, weights_dir

BOOK = Path(__file__).resolve().parent
RESULTS = BOOK / "bench.json"
LENGTHS, BATCHES, THREADS = (16, 128, 512, 2048), (1, 4), (1, 2)
MODES = ("ours", "hf-eager", "hf-sdpa")
TEXTS = (1, 2, 4, 8, 16, 32)  # of a batch
PROMPT, NEW, ROOM = 32, 64, 2048  # tokens: read, written, and of the cache that is weighed
ROWS = (1, 2, 4, 8, 16, 32, 64)  # that go through the bare matrices
FAST = "-fast"  # ends the name of ours with few rows in compiled loops, as it is run
ONEDNN = "-onednn"  # ends the name of a contestant that multiplies by oneDNN


class AnonymousPeak:
    """The most anonymous memory of this process, in bytes, while the block runs. Linux only."""

    def __enter__(self):
        self.peak, self.done = 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self):
        while True:
            status = Path("/proc/self/status").read_text()
            self.peak = max(self.peak, int(status.split("RssAnon:")[1].split()[0]) * 1024)
            if self.done.wait(0.001):
                return

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def loader(mode: str, path: Path):
    """A function that loads the checkpoint in one of the ways compared.

    "floor" reads every tensor and casts it to float32, and does nothing else.
    """
    if mode.startswith("ours"):
        from nanoserve.model import Llama

        return lambda: Llama.from_pretrained(path)
    if mode == "floor":
        from safetensors.torch import load_file

        files = sorted(path.glob("*.safetensors"))
        return lambda: [t.float() for file in files for t in load_file(file).values()]
    from transformers import AutoModelForCausalLM

    attention = mode.removeprefix("hf-")
    return lambda: AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation=attention
    )


def forwards(mode: str, path: Path, batch: int, length: int, model=None):
    """Two functions: one block on a random input, and all blocks on random ids."""
    model = model or loader(mode, path)()
    config, places = model.config, torch.arange(length)
    seeded = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (batch, length), generator=seeded)
    x = torch.randn(batch, length, config.hidden_size, generator=seeded)
    if mode == "ours":
        from nanoserve.layers import rope_table

        cos, sin = rope_table(config, places)
        return lambda: model.blocks[0](x, cos, sin), lambda: model.hidden_states(ids)
    from transformers.masking_utils import create_causal_mask

    base = model.model
    mask = create_causal_mask(config, x, None, None, places[None])
    rope = base.rotary_emb(x, places[None])
    return (
        lambda: base.layers[0](x, attention_mask=mask, position_embeddings=rope),
        lambda: base(ids, use_cache=False),
    )


def measure_load(mode: str, path: str) -> dict:
    """A first load in this process, and its memory; then the median of five more."""
    load, seconds = loader(mode, Path(path)), []
    with AnonymousPeak() as before:
        pass
    for i in range(6):
        with AnonymousPeak() as during:
            start = time.perf_counter()
            model = load()
            seconds.append(time.perf_counter() - start)
        del model
        if not i:
            anonymous = during.peak - before.peak
            rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    again = statistics.median(seconds[1:])
    return {"first": seconds[0], "again": again, "anonymous": anonymous, "rss": rss}


def measure_cold(mode: str, path: str) -> dict:
    """A first load with the files out of the page cache, where the kernel lets go of them."""
    load = loader(mode, Path(path))
    for file in Path(path).glob("*.safetensors"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    load()
    return {"cold": time.perf_counter() - start}


def measure_memory(mode: str, path: str, batch: str, length: str) -> dict:
    """The anonymous memory that one block takes."""
    with torch.inference_mode():
        block, _ = forwards(mode, Path(path), int(batch), int(length))
        with AnonymousPeak() as before:
            pass
        with AnonymousPeak() as during:
            block()
    return {"anonymous": during.peak - before.peak}


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


def measure_import(module: str) -> dict:
    """Seconds until a fresh interpreter has imported `module` and ended."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, cwd=BOOK.parent)
    return {"seconds": time.perf_counter() - start}


MEASURES = {
    "load": measure_load,
    "cold": measure_cold,
    "memory": measure_memory,
    "import": measure_import,
    "step": measure_step,
    "rows": measure_rows,
    "cache": measure_cache,
    "engine": bench_engine.measure_engine,
    "python": bench_engine.measure_python,
    "chat": bench_engine.measure_chat,
    "server": bench_server.measure_server,
    "batch": measure_batch,
}


def fresh(kind: str, *arguments) -> dict:
    """One of MEASURES in a process of its own."""
    command = [sys.executable, __file__, "--one", kind, *map(str, arguments)]
    env = bench_server.ENVIRONMENT.get(arguments[0], {}) | os.environ
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env)
    return json.loads(run.stdout.splitlines()[-1])


def turns(kind: str, contestants, rounds: int, *rest) -> dict:
    """Every contestant measured `rounds` times, in turns: contestant -> field -> numbers."""
    found = {name: {} for name in contestants}
    for _ in range(rounds):
        for name in contestants:
            for field, value in fresh(kind, name, *rest).items():
                found[name].setdefault(field, []).append(value)
    return found


def time_forward(models: dict, path: Path, threads: int, batch: int, length: int) -> dict:
    """Seconds of one block and of all: contestant -> field -> numbers.

    Each number follows a run to warm up. Of runs over 2 seconds there are two numbers, over 30 one.
    """
    runs = {mode: forwards(mode, path, batch, length, model) for mode, model in models.items()}
    found = {mode: {"block": [], "blocks": []} for mode in models}
    for i, field in enumerate(("block", "blocks")):
        for turn in range(1, 8):
            for mode, pair in runs.items():
                timer = Timer("run()", globals={"run": pair[i]}, num_threads=threads)
                found[mode][field].append(timer.blocked_autorange(min_run_time=0.1).median)
            longest = max(found[mode][field][0] for mode in models)
            if (turn == 1 and longest > 30) or (turn == 2 and longest > 2):
                break
    return found


def rows(results: dict):
    """What bench.json holds, by row: title, unit, and each contestant's numbers in that unit."""

    def row(title, found, field, unit, scale):
        return title, unit, {n: [x * scale for x in f[field]] for n, f in found.items()}

    yield row("import", results["import"], "seconds", "s", 1)
    for name, found in results["load"].items():
        yield row(f"{name}, from a cold disk", found, "cold", "s", 1)
        yield row(f"{name}, first load", found, "first", "s", 1)
        yield row(f"{name}, loaded again", found, "again", "s", 1)
        yield row(f"{name}, anonymous memory", found, "anonymous", "MB", 1e-6)
        yield row(f"{name}, peak of the process", found, "rss", "MB", 1e-6)
    for key, found in results["forward"].items():
        yield row(f"one block, {key}", found, "block", "ms", 1e3)
        yield row(f"all blocks, {key}", found, "blocks", "ms", 1e3)
    for key, found in results["memory"].items():
        yield row(f"one block's memory, {key}", found, "anonymous", "MB", 1e-6)
    if "cache" in results:
        yield row("the cache, a token at B 1", results["cache"]["step"], "token", "ms", 1e3)
        title = "the cache, memory for 2,048 tokens"
        yield row(title, results["cache"]["memory"], "anonymous", "MB", 1e-6)
    for key, found in results.get("rows", {}).items():
        yield row(f"the matrices, {key}", found, "pass", "ms", 1e3)
    for n in next(iter(results.get("batch", {}).values()), ()):
        title = f"a batch of {n}"
        yield row(title, results["batch"], n, "tokens/s", 1)
    yield from bench_engine.rows(results, row)
    yield from bench_server.rows(results, row)


def show(title: str, unit: str, numbers: dict) -> str:
    """A row as text: medians, spreads, and ratios to the second contestant, if there is one."""
    base = statistics.median([*numbers.values()][:2][-1])
    texts = [f"{title:<44}"]
    for name, values in numbers.items():
        value, low, high = statistics.median(values), min(values), max(values)
        ratio = value / base if base else 1
        texts.append(f"{name} {value:.4g} {unit} ({low:.4g} to {high:.4g}) x{ratio:.2f}")
    return "  ".join(texts)


def bench_import(rounds: int) -> dict:
    return turns("import", ("nanoserve.model", "torch"), rounds)


def bench_load(rounds: int) -> dict:
    """Both checkpoints, where they are: name -> contestant -> field -> numbers."""
    found = {}
    for path in (weights_dir() / DEFAULT, weights_dir() / f"{TWIN}-full"):
        if path.exists():
            contestants = ("ours", "hf-eager", "floor")
            found[path.name] = turns("load", contestants, rounds, path)
            for name, cold in turns("cold", contestants, rounds, path).items():
                found[path.name][name] |= cold
    return found


def bench_forward(rounds: int) -> dict:
    """Threads, batches and lengths -> contestant -> field -> numbers. In this process."""
    path, found = weights_dir() / DEFAULT, {}
    models = {mode: loader(mode, path)() for mode in MODES}
    for threads, batch, length in itertools.product(THREADS, BATCHES, LENGTHS):
        with torch.inference_mode():
            key = f"{threads} threads, B {batch}, T {length}"
            found[key] = time_forward(models, path, threads, batch, length)
    return found


def bench_memory(rounds: int) -> dict:
    """Batches and lengths -> contestant -> field -> numbers."""
    path = weights_dir() / DEFAULT
    return {
        f"B {batch}, T {length}": turns("memory", MODES, rounds, path, batch, length)
        for batch, length in ((1, 512), (1, 2048), (4, 2048))
    }


STEPS = ("ours", "ours-onednn", "ours-fast", "hf-eager", "matrices", "matrices-onednn", "floor")


def bench_cache(rounds: int) -> dict:
    """A token with a cache, and the cache's memory: contestant -> field -> numbers."""
    path = weights_dir() / DEFAULT
    return {
        "step": turns("step", STEPS, rounds, path),
        "memory": turns("cache", ("ours", "formula"), rounds, path),
    }


def bench_rows(rounds: int) -> dict:
    """Threads and rows -> contestant -> field -> numbers."""
    path, contestants = weights_dir() / DEFAULT, ("matrices", "matrices-onednn", "floor")
    found = {}
    for threads, rows in itertools.product(THREADS, ROWS):
        key = f"{threads} thread{'s' * (threads > 1)}, {rows} row{'s' * (rows > 1)}"
        found[key] = turns("rows", contestants, rounds, path, rows, threads)
    return found


def bench_batch(rounds: int) -> dict:
    """Tokens a second: contestant -> rows of the batch -> numbers."""
    return turns("batch", ("ours", "hf-eager"), rounds, weights_dir() / DEFAULT)


def bench_the_engine(rounds: int) -> dict:
    """A mix of requests, and what Python takes of a step."""
    return bench_engine.bench_engine(turns, rounds, weights_dir() / DEFAULT)


def bench_the_server(rounds: int) -> dict:
    """Its tokens a second beside its engine's own, and its health meanwhile."""
    return bench_server.bench_server(turns, rounds, weights_dir() / DEFAULT)


PARTS = {
    "import": bench_import,
    "load": bench_load,
    "forward": bench_forward,
    "memory": bench_memory,
    "cache": bench_cache,
    "rows": bench_rows,
    "batch": bench_batch,
    "engine": bench_the_engine,
    "server": bench_the_server,
}


def main() -> None:
    """Measure the parts asked for, print the table, write bench.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes a measurement")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all of them if none")
    arguments = parser.parse_args()
    if arguments.one:
        kind, *rest = arguments.one
        print(json.dumps(MEASURES[kind](*rest)))
        return
    unknown = [name for name in arguments.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}: choose from {', '.join(PARTS)}")
    import transformers

    kept = json.loads(RESULTS.read_text("utf-8")) if arguments.parts else {}
    about = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
    results = kept | about
    if kept and results != kept:
        parser.error(f"{RESULTS} is of another machine or of other versions: measure every part")
    for name in arguments.parts or PARTS:
        results[name] = PARTS[name](arguments.rounds)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    for row in rows(results):
        print(show(*row))


if __name__ == "__main__":
    main()
