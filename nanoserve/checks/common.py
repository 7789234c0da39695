"""What the checks share: verdicts on calls and values, and a place to load one piece into."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nanoserve.config import ModelConfig

F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16
KIND = {F64: "fp64", F32: "fp32", F16: "fp16", BF16: "bf16"}


def agree(what: str, mine: Any, wanted: Any) -> None:
    """AssertionError unless both are of one type and equal; of dicts and sets, where they part.

    What is inside a list or a dict is held to Python's `==` alone. For a yes or no, `holds` says
    more.
    """
    if type(mine) is type(wanted) and mine == wanted:
        return
    if isinstance(mine, dict) and isinstance(wanted, dict):
        mine, wanted = without(mine, wanted), without(wanted, mine)
    if isinstance(mine, set) and isinstance(wanted, set):
        mine, wanted = sorted(mine - wanted, key=repr), sorted(wanted - mine, key=repr)
    raise AssertionError(f"{what}: nanoserve has {mine!r:.400}, wanted {wanted!r:.400}")


def without(a: dict, b: dict) -> dict:
    """What `a` has and `b` has not, or has otherwise."""
    return {key: value for key, value in a.items() if key not in b or b[key] != value}


def holds(must: str, condition: bool, otherwise: str = "") -> None:
    """AssertionError unless `condition`: `must` is a sentence on what was tried and must be so.

    `otherwise` says what happened instead, where that is known:
    `holds("blocks.0.attn, called twice, must give the same twice", same, "it gave ...")`.
    TypeError where `condition` is not a bool: a tensor or a forgotten result is no verdict.
    """
    if not isinstance(condition, bool):
        raise TypeError(f"{must}: a bool is wanted, not {condition!r:.100}")
    if not condition:
        raise AssertionError(f"{must}. It is not so" + (f": {otherwise}" if otherwise else "."))


def attempt(what: Any, act: Callable, *inputs: Any, **named: Any) -> Any:
    """What a call of ours gives. An error is a mismatch, and so is an input that it changed.

    Inputs that are tensors are looked at, those without data (on the meta device) for their
    shape alone.
    """
    named_inputs = {f"input {i}": x for i, x in enumerate(inputs, 1)} | named
    given = {name: x for name, x in named_inputs.items() if isinstance(x, torch.Tensor)}
    before = {name: x.detach().clone() for name, x in given.items()}
    try:
        result = act(*inputs, **named)
    except NotImplementedError as error:
        if "meta tensor" in str(error).lower():  # torch's word for data that was fetched from there
            raise AssertionError(f"{what}: {error!r}") from error
        raise  # a practice notebook's blank says so itself
    except Exception as error:
        raise AssertionError(f"{what}: {error!r}") from error
    changed = [name for name, x in given.items() if not alike(before[name], x.detach())]
    if changed:
        raise AssertionError(
            f"{what}: the call changed what it was given ({', '.join(changed)}) in place. An "
            "input belongs to the caller: x = x + y makes a new tensor, x += y changes the old one."
        )
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


def tells(what: str, said: str, words: list) -> None:
    """AssertionError unless a refusal's message `said` has each of these words or numbers."""
    untold = ", ".join(str(word) for word in words if str(word) not in said)
    holds(f"{what}: the message must tell of {untold}", not untold, f"it is {said!r}")


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors have one dtype, shape and device, and the same values.

    NaN is like NaN. Of tensors on the meta device, which have no values, the rest is compared.
    """
    if (a.dtype, a.shape, a.device) != (b.dtype, b.shape, b.device):
        return False
    # What is not equal to itself is NaN.
    return a.is_meta or bool(((a == b) | ((a != a) & (b != b))).all())


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
