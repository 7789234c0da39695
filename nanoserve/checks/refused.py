"""Whether the loader refuses what it must, names it, and leaves the model as it was: Day 3."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.checks.common import agree
from nanoserve.checks.made import FILE, empty_model, read_tensors
from nanoserve.config import ModelConfig
from nanoserve.loader import load_weights
from nanoserve.reference import our_name


def refusal(what: str, act: Callable, *inputs: Any) -> str:
    """What the CheckpointError says that the call must raise. No other error will do."""
    try:
        act(*inputs)
    except CheckpointError as error:
        return str(error)
    except Exception as error:
        raise AssertionError(f"{what}: {error!r}") from error
    raise AssertionError(f"{what}: accepted, and must be refused")


def refused(what: str, path: Path, *words: str, model: nn.Module | None = None) -> None:
    """Loading must fail, telling all `words`, and leave the model (full of 7) untouched."""
    if model is None:
        shapes = ModelConfig.from_pretrained(path).tensor_shapes()
        model = sevens({our_name(name): shape for name, shape in shapes.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        error = refusal(what, load_weights, model, path)
    untold = [word for word in words if word not in error]
    agree(f"{what}: not told, of {error}", untold, [])
    same = all((p == 7).all() for p in model.parameters() if not p.is_meta)
    agree(f"{what}: the model is as it was", same, True)


def sevens(shapes: dict[str, tuple]) -> nn.Module:
    """A module in which an untouched value is known."""
    return empty_model(shapes, value=7.0)


def spoilt(
    what: str,
    path: Path,
    changes: dict[str, torch.Tensor | None],
    *words: str,
    model: nn.Module | None = None,
) -> None:
    """Refused with these tensors in the file, None for one that is not there; then mended."""
    good = read_tensors(path / FILE)
    held = {name: t for name, t in (good | changes).items() if t is not None}
    apart = {name: t.clone(memory_format=torch.contiguous_format) for name, t in held.items()}
    save_file(apart, path / FILE)
    refused(what, path, *words, model=model)
    save_file(good, path / FILE)
