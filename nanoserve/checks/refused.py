"""Whether the loader refuses what it must, names it, and leaves the model as it was: Day 3.

Each gives findings, a sentence for each thing that is not as it must be: what was tried, what
happened, what should have. `together` tells all of them at once.
"""

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.checks.made import FILE, empty_model, read_tensors
from nanoserve.config import ModelConfig
from nanoserve.loader import load_weights
from nanoserve.reference import our_name


def together(title: str, findings: Iterable[str]) -> None:
    """AssertionError that tells all the findings, if there are any."""
    found = list(findings)
    if found:
        told = "\n".join(f"- {finding}" for finding in found)
        raise AssertionError(f"{title}: {len(found)} found wrong\n{told}")


def refusal(what: str, words: tuple[str, ...], act: Callable, *inputs: Any) -> list[str]:
    """Findings of a call that must raise a CheckpointError with all of these words in it."""
    tried = f"{what}: {act.__name__} must raise a CheckpointError"
    try:
        act(*inputs)
    except CheckpointError as error:
        untold = [word for word in words if word not in str(error)]
        return [f"{what}: the CheckpointError must tell of {untold}, it is: {error}"] * any(untold)
    except NotImplementedError:  # a practice notebook's blank says so itself
        raise
    except Exception as error:
        return [f"{tried} that tells of {list(words)}, it raised {error!r}"]
    return [f"{tried} that tells of {list(words)}, it took what it was given"]


def refused(what: str, path: Path, *words: str, model: nn.Module | None = None) -> list[str]:
    """Findings where loading must fail, telling all `words`, and leave the model untouched."""
    if model is None:
        shapes = ModelConfig.from_pretrained(path).tensor_shapes()
        model = sevens({our_name(name): shape for name, shape in shapes.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = refusal(what, words, load_weights, model, path)
    touched = [n for n, p in model.named_parameters() if not p.is_meta and (p != 7).any()]
    if touched:
        found.append(f"{what}: load_weights must leave the model as it was, it wrote to {touched}")
    return found


def accepted(what: str, path: Path) -> list[str]:
    """Findings where loading must succeed, with the values that are in the files."""
    tensors = {}
    for file in sorted(path.glob("model*.safetensors")):
        tensors |= read_tensors(file)
    shapes = ModelConfig.from_pretrained(path).tensor_shapes()
    model = sevens({our_name(name): shape for name, shape in shapes.items()})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_weights(model, path)
    except NotImplementedError:
        raise
    except Exception as error:
        return [f"{what}: load_weights must load it, it raised {error!r}"]
    wanted = {name: tensors[name].to(torch.float32) for name in shapes}
    wrong = [
        name
        for name, tensor in wanted.items()
        if not torch.equal(model.get_parameter(our_name(name)).nan_to_num(), tensor.nan_to_num())
    ]
    return [f"{what}: load_weights must copy {wrong}, it left other values there"] * any(wrong)


def sevens(shapes: dict[str, tuple]) -> nn.Module:
    """A module in which an untouched value is known."""
    return empty_model(shapes, value=7.0)


def with_tensors(path: Path, changes: dict[str, torch.Tensor | None], act: Callable) -> list[str]:
    """What `act` finds with these tensors in the file, None for one that is not there."""
    good = read_tensors(path / FILE)
    held = {name: t for name, t in (good | changes).items() if t is not None}
    apart = {name: t.clone(memory_format=torch.contiguous_format) for name, t in held.items()}
    save_file(apart, path / FILE)
    found = act()
    save_file(good, path / FILE)
    return found


def spoilt(
    what: str,
    path: Path,
    changes: dict[str, torch.Tensor | None],
    *words: str,
    model: nn.Module | None = None,
) -> list[str]:
    """Findings where loading must fail with these tensors in the file; then it is mended."""
    return with_tensors(path, changes, lambda: refused(what, path, *words, model=model))
