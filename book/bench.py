"""How fast, and in how much memory, beside transformers: make bench.

Contestants take turns, so that a busy minute hurts all of them alike; memory is measured in fresh
processes. Prints a table of medians, spreads and ratios, and writes every number to bench.json,
which the page "How fast is plain?" shows. Takes about an hour on two cores; some parts alone can
be measured again, and the others stay as they are.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

# The book lets waiting threads sleep, so that many programs share the cores. What is measured
# here has the machine to itself: threads that spin are how people run it, on both sides alike.
os.environ.pop("OMP_WAIT_POLICY", None)

import bench_engine
import bench_model
import bench_server
import bench_tokens
import torch

from nanoserve.checkpoints import DEFAULT, weights_dir

RESULTS = Path(__file__).resolve().parent / "bench.json"
MEASURES = {
    "load": bench_model.measure_load,
    "cold": bench_model.measure_cold,
    "memory": bench_model.measure_memory,
    "import": bench_model.measure_import,
    "step": bench_tokens.measure_step,
    "rows": bench_tokens.measure_rows,
    "cache": bench_tokens.measure_cache,
    "batch": bench_tokens.measure_batch,
    "engine": bench_engine.measure_engine,
    "python": bench_engine.measure_python,
    "chat": bench_engine.measure_chat,
    "server": bench_server.measure_server,
}
# Functions of `turns`, the rounds, and the checkpoint's folder.
PARTS = {
    "import": bench_model.bench_import,
    "load": bench_model.bench_load,
    "forward": bench_model.bench_forward,
    "memory": bench_model.bench_memory,
    "cache": bench_tokens.bench_cache,
    "rows": bench_tokens.bench_rows,
    "batch": bench_tokens.bench_batch,
    "engine": bench_engine.bench_engine,
    "server": bench_server.bench_server,
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


def rows(results: dict):
    """What bench.json holds, by row: title, unit, and each contestant's numbers in that unit."""

    def row(title, found, field, unit, scale):
        return title, unit, {n: [x * scale for x in f[field]] for n, f in found.items()}

    for part in (bench_model, bench_tokens, bench_engine, bench_server):
        yield from part.rows(results, row)


def show(title: str, unit: str, numbers: dict) -> str:
    """A row as text: medians, spreads, and ratios to the second contestant, if there is one."""
    base = statistics.median([*numbers.values()][:2][-1])
    texts = [f"{title:<44}"]
    for name, values in numbers.items():
        value, low, high = statistics.median(values), min(values), max(values)
        ratio = value / base if base else 1
        texts.append(f"{name} {value:.4g} {unit} ({low:.4g} to {high:.4g}) x{ratio:.2f}")
    return "  ".join(texts)


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
        results[name] = PARTS[name](turns, arguments.rounds, weights_dir() / DEFAULT)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    for row in rows(results):
        print(show(*row))


if __name__ == "__main__":
    main()
