"""Llama.from_pretrained: what it loads, and what it refuses. Day 7."""

import tempfile
import warnings
from copy import deepcopy
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nanoserve.checks.common import BF16, F16, F32, agree, attempt, holds, must_raise
from nanoserve.checks.loader_memory import label
from nanoserve.comparison import MADE_UP, compare
from nanoserve.loader import key_map
from nanoserve.model import Llama
from nanoserve.reference import our_name

LOADS = ((None, F32), (0, F32), (1, BF16), (2, F16))  # num_blocks and dtype


def load(path: PathLike, **asked: Any) -> Llama:
    """Our model of the checkpoint, checked. What is not asked for has its default."""
    given = "".join(f", {name}={value}" for name, value in asked.items())
    what = f"Llama.from_pretrained({label(Path(path))}{given})"
    model = attempt(what, Llama.from_pretrained, path, **asked)
    check_loaded(model, asked.get("num_blocks"), asked.get("dtype", F32))
    return model


def load_saved(theirs: nn.Module, **asked: Any) -> Llama:
    """Our model of the files that HuggingFace's made one saves, checked as `load` does it."""
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(Path(folder) / MADE_UP)
        return load(Path(folder) / MADE_UP, **asked)


def check_loaded(model: Llama, num_blocks: int | None, dtype: torch.dtype) -> None:
    """That a model has its blocks' parameters and no more, in `dtype`, and is for inference."""
    names, layers = set(key_map(model.config)), range(model.config.num_hidden_layers)
    if num_blocks is not None:
        later = tuple(f"blocks.{i}." for i in layers[num_blocks:])
        names = {name for name in names if not name.startswith(later)}
    held = dict(model.named_parameters())
    kept = {name for name, p in held.items() if p.requires_grad}
    what = f"from_pretrained with num_blocks {num_blocks}, {dtype}"
    agree(f"{what}: the parameters", set(held), names)
    agree(f"{what}: their dtypes", {str(p.dtype) for p in held.values()}, {str(dtype)})
    agree(f"{what}: their devices", {p.device.type for p in held.values()}, {"cpu"})
    holds(
        f"{what}: no parameter may require a gradient, the model is for inference",
        not kept,
        f"{len(kept)} do",
    )
    holds(f"{what}: the model must be in evaluation mode", not model.training)


def check_loading(path: PathLike, theirs: nn.Module) -> None:
    """All blocks, none or some, in three dtypes: every value of the model that was saved."""
    wanted = {our_name(name): p.detach() for name, p in theirs.named_parameters()}
    for num_blocks, dtype in LOADS:
        what = f"num_blocks {num_blocks}, {dtype}"
        mine = attempt(what, Llama.from_pretrained, str(path), num_blocks, dtype)
        check_loaded(mine, num_blocks, dtype)
        for name, p in mine.named_parameters():
            compare(name, p, wanted[name].to(dtype), 0, 0)
    for impossible in (-1, theirs.config.num_hidden_layers + 1):
        what = f"from_pretrained with num_blocks {impossible}"
        must_raise(ValueError, what, Llama.from_pretrained, path, impossible)


def check_promises(path: PathLike, theirs: nn.Module) -> None:
    """A subclass; dtypes that are none; that blocks not asked for are not read."""

    class Own(Llama):
        """A reader's own model."""

    mine = attempt("a subclass's from_pretrained", Own.from_pretrained, path, 1)
    agree("a subclass's from_pretrained, the type of what it gives", type(mine), Own)
    for dtype in ("float16", torch.int8, torch.complex64, None):
        what = f"from_pretrained with dtype={dtype!r}"
        said = must_raise(TypeError, what, Llama.from_pretrained, path, 1, dtype)
        holds(f"{what}: the TypeError must name it", repr(dtype) in said, f"it says {said!r:.200}")
    broken = deepcopy(theirs)
    nn.init.constant_(broken.model.layers[-1].mlp.up_proj.weight, torch.nan)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        broken.save_pretrained(folder, max_shard_size="8KB")
        attempt("from_pretrained with num_blocks 1", Llama.from_pretrained, folder, 1)
    about = [str(w.message) for w in warned if "NaN" in str(w.message)]
    holds(
        "from_pretrained with num_blocks 1, of a checkpoint whose last block has NaN: that block "
        "must not be read",
        not about,
        f"this warning came: {about}",
    )
