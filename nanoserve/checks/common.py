"""What the checks share: verdicts on calls and values, and a place to load one piece into."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nanoserve.config import ModelConfig

F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16
KIND = {F64: "fp64", F32: "fp32", F16: "fp16", BF16: "bf16"}


def agree(what: str, mine: Any, wanted: Any) -> None:
    """AssertionError unless both are of one type and equal; of dicts and sets, where they part."""
    if type(mine) is type(wanted) and mine == wanted:
        return
    if isinstance(mine, dict) and isinstance(wanted, dict):
        mine, wanted = set(mine.items()), set(wanted.items())
    if isinstance(mine, set) and isinstance(wanted, set):
        mine, wanted = sorted(mine - wanted), sorted(wanted - mine)
    raise AssertionError(f"{what}: nanoserve has {mine!r:.400}, wanted {wanted!r:.400}")


def attempt(what: Any, act: Callable, *inputs: Any, **named: Any) -> Any:
    """What a call of ours gives. An error is a mismatch, and so is an input that it changed."""
    tensors = [t for t in (*inputs, *named.values()) if isinstance(t, torch.Tensor)]
    given = [t.detach() for t in tensors if not t.is_meta]
    before = [t.clone() for t in given]
    try:
        result = act(*inputs, **named)
    except NotImplementedError:  # a practice notebook's blank says so itself
        raise
    except Exception as error:
        raise AssertionError(f"{what}: {error!r}") from error
    if not all(map(alike, before, given)):
        raise AssertionError(f"{what}: an input was changed")
    return result


def must_raise(error: type[Exception], what: str, act: Callable, *inputs: Any, **named: Any) -> str:
    """The message with which a call of ours refuses its input. AssertionError if it does not."""
    try:
        act(*inputs, **named)
    except error as refusal:
        return str(refusal)
    except NotImplementedError:  # a practice notebook's blank says so itself
        raise
    except Exception as other:
        raise AssertionError(
            f"{what}: {error.__name__} is wanted, and this was raised: {other!r}"
        ) from other
    raise AssertionError(f"{what}: {error.__name__} is wanted, and nothing was raised")


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors hold the same values, NaN in the same places too."""
    return torch.equal(a, b) or torch.allclose(a, b, 0, 0, equal_nan=True)


def stack(config: ModelConfig, **pieces: Callable[[], nn.Module]) -> nn.ModuleDict:
    """A module to load from a checkpoint that has these pieces alone in each of its blocks.

    `stack(config, mlp=make)` calls `make` for each block; its parameters are named
    `blocks.0.mlp.gate_proj.weight` and so on.
    """
    blocks = (
        nn.ModuleDict({name: make() for name, make in pieces.items()})
        for _ in range(config.num_hidden_layers)
    )
    return nn.ModuleDict({"blocks": nn.ModuleList(blocks)}).requires_grad_(False)
