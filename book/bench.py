"""How fast, and in how much memory, beside transformers: make bench.

Every measurement is a fresh process; contestants take turns, so that a busy minute hurts all of
them alike. The table gives medians, spreads and ratios; _build/bench.json has every number.
"""

import argparse
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

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]
MODES = ("ours", "hf-eager", "hf-sdpa")
LENGTHS, BATCHES, THREADS = (16, 128, 512, 2048), (1, 4), (1, 2)


class AnonymousPeak:
    """The highest anonymous memory of this process, in bytes, sampled while the block runs."""

    def __enter__(self):
        self.peak, self.done = 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self):
        while not self.done.wait(0.001):
            self.sample()

    def sample(self):
        status = Path("/proc/self/status")
        if status.exists():  # Linux only
            line = next(x for x in status.read_text().splitlines() if x.startswith("RssAnon"))
            self.peak = max(self.peak, int(line.split()[1]) * 1024)

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        self.sample()


def drop_cache(path: Path) -> None:
    """Ask the kernel to forget the files' pages, so that the next read is cold."""
    for file in path.glob("*.safetensors"):
        with file.open("rb") as f:
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def loader(mode: str, path: Path):
    """A function that loads the checkpoint in one of the ways compared."""
    import torch

    if mode == "ours":
        from nanoserve.model import Llama

        return lambda: Llama.from_pretrained(path)
    if mode == "floor":
        from safetensors import safe_open

        def read_all():
            tensors = {}
            for file in sorted(path.glob("*.safetensors")):
                with safe_open(file, "pt") as f:
                    tensors |= {name: f.get_tensor(name).float() for name in f.keys()}  # noqa: SIM118
            return tensors

        return read_all
    from transformers import AutoModelForCausalLM

    attention = mode.removeprefix("hf-")
    return lambda: AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation=attention
    )


def measure_load(mode: str, path: Path, cold: bool) -> dict:
    """Seconds, and bytes of anonymous memory over what the imports took."""
    load = loader(mode, path)
    if cold:
        drop_cache(path)
    with AnonymousPeak() as before:
        pass
    with AnonymousPeak() as during:
        start = time.perf_counter()
        model = load()
        seconds = time.perf_counter() - start
    del model
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "anonymous": during.peak - before.peak, "rss": peak}


def forwards(mode: str, path: Path, batch: int, length: int):
    """Two functions: one block on a random input, and all blocks on random ids."""
    import torch

    model = loader(mode, path)()
    generator = torch.Generator().manual_seed(0)
    if mode == "ours":
        from nanoserve.layers import rope_table

        config = model.config
        ids = torch.randint(config.vocab_size, (batch, length), generator=generator)
        x = torch.randn(batch, length, config.hidden_size, generator=generator)
        cos, sin = rope_table(config, torch.arange(length))
        return lambda: model.blocks[0](x, cos, sin), lambda: model.hidden_states(ids)
    from transformers.masking_utils import create_causal_mask

    config, base = model.config, model.model
    ids = torch.randint(config.vocab_size, (batch, length), generator=generator)
    x = torch.randn(batch, length, config.hidden_size, generator=generator)
    places = torch.arange(length)[None]
    mask = create_causal_mask(config, x, None, None, places)
    rope = base.rotary_emb(x, places)
    block = base.layers[0]
    return (
        lambda: block(x, attention_mask=mask, position_embeddings=rope),
        lambda: base(ids, use_cache=False),
    )


def measure_forward(mode: str, path: Path, threads: int, batch: int, length: int) -> dict:
    """Median seconds of a block and of all blocks, and the anonymous memory of a block."""
    import torch
    from torch.utils.benchmark import Timer

    torch.set_num_threads(threads)
    found = {}
    with torch.inference_mode():
        block, blocks = forwards(mode, path, batch, length)
        for name, run in (("block", block), ("blocks", blocks)):
            run()
            timer = Timer("run()", globals={"run": run}, num_threads=threads)
            found[name] = timer.blocked_autorange(min_run_time=0.3).median
        with AnonymousPeak() as before:
            pass
        with AnonymousPeak() as during:
            block()
        found["anonymous"] = during.peak - before.peak
    return found


def measure_import(module: str) -> dict:
    """Seconds that importing a module takes."""
    start = time.perf_counter()
    __import__(module)
    return {"seconds": time.perf_counter() - start}


def fresh(kind: str, *arguments) -> dict:
    """One measurement in a new process."""
    command = [sys.executable, __file__, "--one", json.dumps([kind, *map(str, arguments)])]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def one(kind: str, *arguments: str) -> dict:
    """What `fresh` runs."""
    if kind == "import":
        return measure_import(*arguments)
    mode, path, *rest = arguments
    if kind == "load":
        return measure_load(mode, Path(path), rest[0] == "cold")
    return measure_forward(mode, Path(path), *map(int, rest))


def turns(kind: str, contestants, rounds: int, *rest) -> dict:
    """Every contestant measured `rounds` times, taking turns: name -> field -> numbers."""
    found = {name: {} for name in contestants}
    for _ in range(rounds):
        for name in contestants:
            for field, value in fresh(kind, name, *rest).items():
                found[name].setdefault(field, []).append(value)
    return found


def show(title: str, found: dict, field: str, base: str, unit: float = 1e3) -> None:
    """A line: each contestant's median (and spread), and its ratio to `base`."""
    middle = statistics.median(found[base][field])
    texts = []
    for name, fields in found.items():
        values = fields[field]
        value = statistics.median(values)
        low, high = min(values) * unit, max(values) * unit
        ratio = value / middle if middle else float("nan")
        texts.append(f"{name} {value * unit:.1f} ({low:.1f} to {high:.1f}) x{ratio:.2f}")
    print(f"{title:<34} " + "   ".join(texts), flush=True)


def main() -> None:
    """Measure everything, print the table, write _build/bench.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(*json.loads(arguments.one))))
        return
    import torch
    import transformers

    results = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "load": {},
        "forward": {},
    }
    results["import"] = turns("import", ("torch", "nanoserve", "nanoserve.model"), 3)
    show("import, ms", results["import"], "seconds", "torch")
    for name in ("smollm2-135m", "llama-3.2-1b-twin-full"):
        path = ROOT / "weights" / name
        if not path.exists():
            print(f"{name}: not there, skipped")
            continue
        for state in ("warm", "cold"):
            found = turns("load", ("ours", "hf-eager", "floor"), arguments.rounds, path, state)
            results["load"][f"{name} {state}"] = found
            show(f"load {name} {state}, ms", found, "seconds", "hf-eager")
            show("  anonymous memory, MB", found, "anonymous", "hf-eager", 1e-6)
    path = ROOT / "weights" / "smollm2-135m"
    for threads in THREADS:
        for batch in BATCHES:
            for length in LENGTHS:
                found = turns("forward", MODES, 3, path, threads, batch, length)
                key = f"threads {threads}, B {batch}, T {length}"
                results["forward"][key] = found
                show(f"block, {key}, ms", found, "block", "hf-eager")
                show("  all blocks, ms", found, "blocks", "hf-eager")
                show("  a block's memory, MB", found, "anonymous", "hf-eager", 1e-6)
    file = ROOT / "_build" / "bench.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(results, indent=1), "utf-8")
    print(f"every number is in {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
