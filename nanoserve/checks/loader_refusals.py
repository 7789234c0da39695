"""Files, models and configs that the loader must refuse, naming what is wrong: Day 3."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from nanoserve.checks.common import attempt
from nanoserve.checks.loader_folders import check_folders
from nanoserve.checks.loader_values import check_tied_head, check_warnings
from nanoserve.checks.made import (
    DOWN,
    FILE,
    NORM,
    TIED,
    empty_model,
    read_tensors,
    save_checkpoint,
    save_shards,
)
from nanoserve.checks.refused import refusal, refused, sevens, spoilt, together
from nanoserve.config import ModelConfig
from nanoserve.loader import load_weights, plan_copies, read_index, refuse_other_sizes

BIAS = "model.layers.1.mlp.down_proj.bias"


def check_refusals() -> None:
    """Wrong tensors, models that do not fit, odd values, wrong sizes; then wrong folders.

    AssertionError tells all findings together.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = save_checkpoint(folder, "one file", **TIED)
        checks = (
            check_names,
            check_shapes,
            check_dtypes,
            check_all_at_once,
            check_models,
            check_tied_head,
            check_bad_tuples,
            check_sizes,
            check_warnings,
        )
        found = [finding for check in checks for finding in check(path)]
        found += check_folders(save_shards(folder))
    together("What the loader must refuse, and what not", found)


def check_names(path: Path) -> Iterator[str]:
    """A tensor too few, one too many, one of a layer that the model does not have."""
    down = read_tensors(path / FILE)[DOWN]
    fourth = DOWN.replace("1", "3")
    yield from spoilt("a file without a tensor", path, {DOWN: None}, DOWN, "missing")
    bias = {BIAS: torch.ones(24)}
    yield from spoilt("a file with a bias", path, bias, BIAS, "unexpected")
    yield from spoilt("a file with a fourth layer", path, {fourth: down}, fourth, "unexpected")
    part = sevens({"norm.weight": (24,)})
    yield from spoilt("a part, and no down_proj", path, {DOWN: None}, DOWN, "missing", model=part)


def check_shapes(path: Path) -> Iterator[str]:
    """Other sizes, and the same numbers in another shape."""
    good = read_tensors(path / FILE)
    down, norm = good[DOWN], good[NORM]
    for what, name, tensor, *words in (
        ("longer", NORM, torch.ones(25), "[25]", "[24]"),
        ("shorter", DOWN, down[:, 1:], "[24, 39]", "[24, 40]"),
        ("transposed", DOWN, down.T, "[40, 24]", "[24, 40]"),
        ("flat", DOWN, down.flatten(), "[960]"),
        ("deeper", NORM, norm[:, None], "[24, 1]"),
        ("a scalar", NORM, torch.tensor(1.0), "[]"),
        ("without a number", DOWN, torch.ones(0), "[0]", "[24, 40]"),
    ):
        yield from spoilt(f"a tensor that is {what}", path, {name: tensor}, name, *words)


def check_dtypes(path: Path) -> Iterator[str]:
    """Integers and float8, which want scales that we do not read."""
    down = read_tensors(path / FILE)[DOWN]
    for dtype, word in (
        (torch.int32, "I32"),
        (torch.int8, "I8"),
        (torch.float8_e4m3fn, "F8_E4M3"),
    ):
        yield from spoilt(f"a tensor of {word}", path, {DOWN: down.to(dtype)}, DOWN, word)


def check_all_at_once(path: Path) -> Iterator[str]:
    """One error tells all that is wrong, what is missing first."""
    q, k = (f"model.layers.2.self_attn.{x}_proj.weight" for x in "qk")
    ints = read_tensors(path / FILE)[k].int()
    changes = {DOWN: None, q: None, BIAS: torch.ones(24), NORM: torch.ones(25), k: ints}
    words = DOWN, q, BIAS, NORM, k, "I32"
    yield from spoilt("a file with five faults", path, changes, *words)
    # Nothing was copied, so more is told than fits: what is missing must not be cut off.
    names = [name for name in read_tensors(path / FILE) if name != NORM]
    renamed = dict.fromkeys(names[-3:]) | {f"a{i}": torch.ones(1) for i in range(30)}
    yield from spoilt("a file of many strange tensors", path, renamed, *names[-3:], "more")


def check_models(path: Path) -> Iterator[str]:
    """A sound file, and a model that it cannot fill."""
    strange = sevens({"norm.weight": (24,), "extra": (3,)})
    yield from refused("a model with a parameter too many", path, "extra", model=strange)
    scalar = sevens({"norm.weight": ()})
    yield from refused("a model whose norm is a scalar", path, NORM, model=scalar)
    meta = sevens({"norm.weight": (24,)}).to("meta")
    yield from refused("a model without memory", path, "norm.weight", "to_empty", model=meta)
    both = refusal("two faults of a model", ("extra", "[25]"), load_weights, *two_faults(path))
    yield from both


def two_faults(path: Path) -> tuple:
    """A model with a parameter too many, and one of another size."""
    return sevens({"norm.weight": (25,), "extra": (3,)}), path


def check_bad_tuples(path: Path) -> Iterator[str]:
    """Tuples in a map whose tensors are missing, or do not add up."""
    index = read_index(path)
    q, k, v = (f"model.layers.0.self_attn.{x}_proj.weight" for x in "qkv")
    for what, shape, names, word in (
        ("is a row short", (79, 24), (q, k, v), "[79, 24]"),
        ("is too wide", (80, 25), (q, k, v), "[80, 25]"),
        ("has a missing part", (80, 24), (q, k, "none"), "none"),
        ("has a part of another width", (80, 24), (q, DOWN), "[24, 40]"),
        ("has no parts", (80, 24), (), "qkv"),
    ):
        model = empty_model({"qkv": shape})
        copies, found = attempt(
            f"plan_copies, where qkv {what}", plan_copies, model, {"qkv": names}, index
        )
        if copies or not any(word in problem for problem in found):
            yield (
                f"a map in which qkv {what}: plan_copies must give no copies, and a problem that "
                f"tells of {word!r}; it gives {len(copies)} copies and {found}"
            )


def check_sizes(path: Path) -> Iterator[str]:
    """Before a model is made, a config that is wrong about a size."""
    config = ModelConfig.from_pretrained(path)
    right = config.tensor_shapes()
    attempt("refuse_other_sizes of the right config", refuse_other_sizes, config, path)
    for size in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "num_hidden_layers",
    ):
        wrong = replace(config, **{size: 2 * getattr(config, size)})
        shapes = wrong.tensor_shapes()
        changed = next(name for name in shapes if shapes[name] != right.get(name))
        what = f"a config with {size} doubled"
        yield from refusal(what, (changed,), refuse_other_sizes, wrong, path)
