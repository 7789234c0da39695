"""How fast, and in how much memory, beside transformers: make bench.

Contestants take turns, so that a busy minute hurts all of them alike; memory is measured in fresh
processes. Prints a table of medians, spreads and ratios, and writes every number to bench.json,
which the page "How fast is plain?" shows. Takes about 40 minutes on two cores.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from torch.utils.benchmark import Timer

BOOK = Path(__file__).resolve().parent
WEIGHTS = BOOK.parent / "weights"
sys.path[:0] = [str(BOOK.parent)]
LENGTHS, BATCHES, THREADS = (16, 128, 512, 2048), (1, 4), (1, 2)
MODES = ("ours", "hf-eager", "hf-sdpa")


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

    "floor" reads every tensor and casts it to float32: no loader can do less.
    """
    if mode == "ours":
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


def measure_memory(mode: str, path: str, batch: str, length: str) -> dict:
    """The anonymous memory that one block takes."""
    with torch.inference_mode():
        block, _ = forwards(mode, Path(path), int(batch), int(length))
        with AnonymousPeak() as before:
            pass
        with AnonymousPeak() as during:
            block()
    return {"anonymous": during.peak - before.peak}


def measure_import(module: str) -> dict:
    """Seconds until a fresh interpreter has imported `module` and ended."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, cwd=BOOK.parent)
    return {"seconds": time.perf_counter() - start}


MEASURES = {"load": measure_load, "memory": measure_memory, "import": measure_import}


def fresh(kind: str, *arguments) -> dict:
    """One of MEASURES in a process of its own."""
    command = [sys.executable, __file__, "--one", kind, *map(str, arguments)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
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
    """Seconds of a block, and up to 2,048 tokens of all: contestant -> field -> numbers."""
    runs = {mode: forwards(mode, path, batch, length, model) for mode, model in models.items()}
    fields = ("block", "blocks") if batch * length <= 2048 else ("block",)
    found = {mode: {field: [] for field in fields} for mode in models}
    for i, field in enumerate(fields):
        timers = {
            mode: Timer("run()", globals={"run": pair[i]}, num_threads=threads)
            for mode, pair in runs.items()
        }
        once = max(timer.timeit(1).mean for timer in timers.values())
        rounds, number = (7, 1 + int(0.1 / once)) if once < 2 else (2, 1)
        for _ in range(rounds):
            for mode, timer in timers.items():
                found[mode][field].append(timer.timeit(number).mean)
    return found


def rows(results: dict):
    """What bench.json holds, by row: title, unit, and each contestant's numbers in that unit."""

    def row(title, found, field, unit, scale):
        return title, unit, {n: [x * scale for x in f[field]] for n, f in found.items()}

    yield row("import", results["import"], "seconds", "s", 1)
    for name, found in results["load"].items():
        yield row(f"{name}, first load", found, "first", "s", 1)
        yield row(f"{name}, loaded again", found, "again", "s", 1)
        yield row(f"{name}, anonymous memory", found, "anonymous", "MB", 1e-6)
        yield row(f"{name}, peak of the process", found, "rss", "MB", 1e-6)
    for key, found in results["forward"].items():
        yield row(f"one block, {key}", found, "block", "ms", 1e3)
        if "blocks" in found["ours"]:
            yield row(f"all blocks, {key}", found, "blocks", "ms", 1e3)
    for key, found in results["memory"].items():
        yield row(f"one block's memory, {key}", found, "anonymous", "MB", 1e-6)


def show(title: str, unit: str, numbers: dict) -> str:
    """A row as text: medians, spreads, and ratios to the second contestant."""
    base = statistics.median(list(numbers.values())[1])
    texts = [f"{title:<44}"]
    for name, values in numbers.items():
        value, low, high = statistics.median(values), min(values), max(values)
        ratio = value / base if base else 1
        texts.append(f"{name} {value:.4g} {unit} ({low:.4g} to {high:.4g}) x{ratio:.2f}")
    return "  ".join(texts)


def main() -> None:
    """Measure everything, print the table, write bench.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes a measurement")
    arguments = parser.parse_args()
    if arguments.one:
        kind, *rest = arguments.one
        print(json.dumps(MEASURES[kind](*rest)))
        return
    import transformers

    results = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "import": turns("import", ("nanoserve.model", "torch"), arguments.rounds),
        "load": {},
        "forward": {},
        "memory": {},
    }
    for name in ("smollm2-135m", "llama-3.2-1b-twin-full"):
        if (WEIGHTS / name).exists():
            contestants = ("ours", "hf-eager", "floor")
            results["load"][name] = turns("load", contestants, arguments.rounds, WEIGHTS / name)
    path = WEIGHTS / "smollm2-135m"
    models = {mode: loader(mode, path)() for mode in MODES}
    for threads in THREADS:
        for batch in BATCHES:
            for length in LENGTHS:
                key = f"{threads} threads, B {batch}, T {length}"
                with torch.inference_mode():
                    found = time_forward(models, path, threads, batch, length)
                results["forward"][key] = found
    for batch, length in ((1, 512), (1, 2048), (4, 2048)):
        found = turns("memory", MODES, arguments.rounds, path, batch, length)
        results["memory"][f"B {batch}, T {length}"] = found
    for row in rows(results):
        print(show(*row))
    (BOOK / "bench.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
