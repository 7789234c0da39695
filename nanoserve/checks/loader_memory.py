"""Loading in place, with little memory on top: Day 3."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from nanoserve.checks.common import agree

SLACK = 2**25  # bytes; what the allocator takes at a time


def label(path: Path) -> str:
    """A checkpoint's name for messages; small ones share the last part of it."""
    return f"{path.parent.name}/{path.name}"


@contextmanager
def watched(path: Path, model: nn.Module) -> Iterator[None]:
    """AssertionError unless the block fills `model`, made of NaN, in place, with little memory.

    Its parameters stay the same objects, in the same places, with or without gradients as before.
    """
    where, before = f"load_weights, {label(path)}", standing(model)
    largest = 4 * max(p.numel() for p in model.parameters())
    with memory() as seen:
        try:
            yield
        except NotImplementedError:  # a practice notebook's blank says so itself
            raise
        except Exception as error:
            raise AssertionError(f"{where}: it must load, and raised {error!r}") from error
    for kind, least in (("of its own", SLACK), ("of mapped files", 4 * SLACK)):
        amounts = seen[kind]
        rise, allowed = max(amounts) - amounts[0], max(largest, least)
        if rise > allowed:
            raise AssertionError(
                f"{where}: memory {kind} may rise by the largest tensor, {allowed} bytes, "
                f"and rose by {rise}: is a tensor cast or copied, or kept after its turn?"
            )
    after = standing(model)
    for name, stood in before.items():
        if after.get(name) != stood:
            raise AssertionError(
                f"{where}: {name} must be filled in place, and stay the parameter that it was "
                "(its object, its memory, its requires_grad)"
            )
    agree(f"{where}: the model's parameters", list(after), list(before))
    check_filled(where, model)


def check_filled(where: str, model: nn.Module) -> None:
    """AssertionError where a parameter, made full of NaN, has rows that are NaN throughout."""
    for name, parameter in model.named_parameters():
        rows = parameter.detach().isnan().reshape(parameter.shape[0], -1).all(1)
        if rows.all():
            raise AssertionError(f"{where}: nothing was copied into {name}, it is NaN as before")
        if rows.any():
            first = rows.nonzero()[0].item()
            raise AssertionError(
                f"{where}: nothing was copied into {rows.sum()} of {len(rows)} rows of {name}, "
                f"row {first} the first: they are NaN as before"
            )


def standing(model: nn.Module) -> dict[str, tuple]:
    """Of each parameter: which object it is, where its memory is, whether it takes gradients."""
    return {n: (id(p), p.data_ptr(), p.requires_grad) for n, p in model.named_parameters()}


@contextmanager
def memory() -> Iterator[dict[str, list[int]]]:
    """This process's memory in bytes, before the block, then again and again (Linux; else 0)."""
    kinds = {"of its own": "RssAnon", "of mapped files": "RssFile"}
    seen, done = {kind: [] for kind in kinds}, threading.Event()
    status = Path("/proc/self/status")

    def look():
        text = status.read_text() if status.exists() else ""
        for kind, word in kinds.items():
            found = re.search(rf"{word}:\s+(\d+) kB", text)
            seen[kind].append(int(found[1]) * 1024 if found else 0)

    def watch():
        while not done.wait(0.001):
            look()

    look()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()
