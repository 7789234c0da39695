"""Loading and the plain pass: the parts "import", "load", "forward" and "memory" of bench.py."""

import itertools
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from bench_peak import AnonymousPeak
from torch.utils.benchmark import Timer

from nanoserve.checkpoints import TWIN

ROOT = Path(__file__).resolve().parents[1]
LENGTHS, BATCHES, THREADS = (16, 128, 512, 2048), (1, 4), (1, 2)
MODES = ("ours", "hf-eager", "hf-sdpa")


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


def measure_import(module: str) -> dict:
    """Seconds until a fresh interpreter has imported `module` and ended."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, cwd=ROOT)
    return {"seconds": time.perf_counter() - start}


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


def bench_import(turns, rounds: int, _) -> dict:
    """Contestant -> field -> numbers. No checkpoint is read."""
    return turns("import", ("nanoserve.model", "torch"), rounds)


def bench_load(turns, rounds: int, path: Path) -> dict:
    """Both checkpoints, where they are: name -> contestant -> field -> numbers."""
    found = {}
    for folder in (path, path.with_name(f"{TWIN}-full")):
        if folder.exists():
            contestants = ("ours", "hf-eager", "floor")
            found[folder.name] = turns("load", contestants, rounds, folder)
            for name, cold in turns("cold", contestants, rounds, folder).items():
                found[folder.name][name] |= cold
    return found


def bench_forward(_turns, _rounds: int, path: Path) -> dict:
    """Threads, batches and lengths -> contestant -> field -> numbers. In this process."""
    models, found = {mode: loader(mode, path)() for mode in MODES}, {}
    for threads, batch, length in itertools.product(THREADS, BATCHES, LENGTHS):
        with torch.inference_mode():
            key = f"{threads} threads, B {batch}, T {length}"
            found[key] = time_forward(models, path, threads, batch, length)
    return found


def bench_memory(turns, rounds: int, path: Path) -> dict:
    """Batches and lengths -> contestant -> field -> numbers."""
    return {
        f"B {batch}, T {length}": turns("memory", MODES, rounds, path, batch, length)
        for batch, length in ((1, 512), (1, 2048), (4, 2048))
    }


def rows(results: dict, row):
    """Their rows in the table."""
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
