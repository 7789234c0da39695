"""What this machine should give: measured, then predicted, in lines of text."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from os import PathLike
from pathlib import Path

import torch

from nanoserve.config import ModelConfig
from nanoserve.cost import Machine, measure, read_bandwidth, step_cost
from nanoserve.loader import read_index
from nanoserve.products import onednn_linear, suits

BATCHES = (1, 4, 16, 64)


def forecast(path: str | PathLike, context: int = 256) -> Iterator[str]:
    """The machine's numbers, then what a step of the checkpoint in folder `path` should take.

    In fp32, as `nanoserve generate` runs it: few texts by compiled loops and more by oneDNN, where
    they are there. Raises ConfigError and CheckpointError, and ValueError for a context below 1,
    before anything is measured.
    """
    config, path = ModelConfig.from_pretrained(path), Path(path)
    narrow = {tensor.dtype for tensor in read_index(path).values()} == {"BF16"}
    most, bits = 0, 32  # texts that the loops take, and what they read of a weight
    if find_spec("numba"):
        from nanoserve.cpu.fewrows import MOST

        most, bits = MOST, 16 if narrow else 32
    costs = {
        batch: step_cost(
            config, batch=batch, context=context, weight_bits=bits if batch <= most else 32
        )
        for batch in BATCHES
    }
    return told(path.name, context, costs, most)


def told(name: str, context: int, costs: dict[int, dict], most: int) -> Iterator[str]:
    """The lines of `forecast`, each as soon as it is known."""
    yield f"{'reading memory':<16}{read_bandwidth() / 1e9:8.1f} GB/s"
    many = few = measure()
    yield line("torch's linear", many)
    by = "torch's linear"
    if suits():
        many, by = measure(onednn_linear), "oneDNN"
        yield line(by, many)
    if most:
        found = measure(by_loops())
        few = replace(found, bandwidth=found.bandwidth / 2)  # what is measured fits into 16 bits
        by = f"loops to {most} texts, then {by}"
        yield line("compiled loops", few)
    yield f"\n{name} in fp32, {context:,} tokens of context, by {by}:"
    yield f"{'texts':>6}{'ms a step':>12}{'tokens/s each':>16}{'in all':>10}"
    for batch, parts in costs.items():
        seconds = (few if batch <= most else many).seconds(parts)
        each = 1 / seconds
        yield f"{batch:>6}{seconds * 1e3:>12.1f}{each:>16.1f}{batch * each:>10.1f}"


def by_loops() -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A product that keeps what the loops read of each weight; many rows are oneDNN's."""
    from nanoserve.cpu.fewrows import FewRowsHead

    heads: dict[int, FewRowsHead] = {}

    def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        head = heads.setdefault(weight.data_ptr(), FewRowsHead(onednn_linear))
        return head(x, weight)

    return product


def line(what: str, machine: Machine) -> str:
    """A machine in a line."""
    read, done = machine.bandwidth / 1e9, machine.rate / 1e9
    return f"{what:<16}{read:8.1f} GB/s with 1 row, {done:.1f} GFLOP/s with 256"
