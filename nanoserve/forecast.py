"""What this machine should give: measured, then predicted, in lines of text."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from nanoserve.config import ModelConfig
from nanoserve.cost import Machine, measure, read_bandwidth, step_cost
from nanoserve.products import onednn_linear, suits

BATCHES = (1, 4, 16, 64)


def forecast(path: str | PathLike, context: int = 256) -> Iterator[str]:
    """The machine's numbers, then what a step of the checkpoint in folder `path` should take.

    In fp32, as `nanoserve generate` runs it: by oneDNN where it is there. Raises ConfigError, and
    ValueError for a context below 1, before anything is measured.
    """
    config = ModelConfig.from_pretrained(path)
    costs = {batch: step_cost(config, batch=batch, context=context) for batch in BATCHES}
    return told(Path(path).name, context, costs)


def told(name: str, context: int, costs: dict[int, dict]) -> Iterator[str]:
    """The lines of `forecast`, each as soon as it is known."""
    yield f"{'reading memory':<16}{read_bandwidth() / 1e9:8.1f} GB/s"
    machine = measure()
    yield line("torch's linear", machine)
    used = "torch's linear"
    if suits():
        machine, used = measure(onednn_linear), "oneDNN"
        yield line(used, machine)
    yield f"\n{name} in fp32, {context:,} tokens of context, by {used}:"
    yield f"{'texts':>6}{'ms a step':>12}{'tokens/s each':>16}{'in all':>10}"
    for batch, parts in costs.items():
        seconds = machine.seconds(parts)
        each = 1 / seconds
        yield f"{batch:>6}{seconds * 1e3:>12.1f}{each:>16.1f}{batch * each:>10.1f}"


def line(what: str, machine: Machine) -> str:
    """A machine in a line."""
    read, done = machine.bandwidth / 1e9, machine.rate / 1e9
    return f"{what:<16}{read:8.1f} GB/s with 1 row, {done:.1f} GFLOP/s with 256"
