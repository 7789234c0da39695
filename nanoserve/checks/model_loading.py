"""Llama.from_pretrained: what it loads, and what it refuses. Day 7."""

from os import PathLike
from typing import Any

import torch
from torch import nn

from nanoserve.checks.common import BF16, F16, F32, agree, attempt
from nanoserve.comparison import compare
from nanoserve.loader import key_map
from nanoserve.model import Llama
from nanoserve.reference import our_name

LOADS = ((None, F32), (0, F32), (1, BF16), (2, F16))  # num_blocks and dtype


def load(path: PathLike, **asked: Any) -> Llama:
    """Our model of the checkpoint, checked. What is not asked for has its default."""
    model = attempt(f"{path}, {asked}", Llama.from_pretrained, path, **asked)
    check_loaded(model, asked.get("num_blocks"), asked.get("dtype", F32))
    return model


def check_loaded(model: Llama, num_blocks: int | None, dtype: torch.dtype) -> None:
    """That a model has its blocks' parameters and no more, in `dtype`, and is for inference."""
    names, layers = set(key_map(model.config)), range(model.config.num_hidden_layers)
    if num_blocks is not None:
        later = tuple(f"blocks.{i}." for i in layers[num_blocks:])
        names = {name for name in names if not name.startswith(later)}
    held = dict(model.named_parameters())
    kept = {name for name, p in held.items() if p.requires_grad}
    what = f"num_blocks {num_blocks}, {dtype}"
    agree(f"{what}: parameters", set(held), names)
    agree(f"{what}: dtypes", {str(p.dtype) for p in held.values()}, {str(dtype)})
    agree(f"{what}: parameters that require gradients", kept, set())
    agree(f"{what}: training mode", model.training, False)


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
        check_refused(path, impossible)


def check_refused(path: PathLike, num_blocks: int) -> None:
    """ValueError, and no other, where there are not so many blocks."""
    try:
        Llama.from_pretrained(path, num_blocks)
    except ValueError:
        return
    except Exception as error:
        raise AssertionError(f"num_blocks {num_blocks}: {error!r}") from error
    raise AssertionError(f"num_blocks {num_blocks} was accepted")
