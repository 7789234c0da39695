"""Files, models and configs that the loader must refuse, naming what is wrong: Day 3."""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from nanoserve.checks.common import agree, attempt
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
from nanoserve.checks.refused import refusal, refused, sevens, spoilt
from nanoserve.config import ModelConfig
from nanoserve.loader import plan_copies, read_index, refuse_other_sizes


def check_refusals() -> None:
    """Wrong tensors, models that do not fit, odd values, wrong sizes; then wrong folders."""
    with tempfile.TemporaryDirectory() as folder:
        path = save_checkpoint(folder, "one file", **TIED)
        check_names(path)
        check_shapes(path)
        check_dtypes(path)
        check_all_at_once(path)
        check_models(path)
        check_tied_head(path)
        check_bad_tuples(path)
        check_sizes(path)
        check_warnings(path)
        check_folders(save_shards(folder))


def check_names(path: Path) -> None:
    """A tensor too few, one too many, one of a layer that the model does not have."""
    down = read_tensors(path / FILE)[DOWN]
    bias, fourth = "model.layers.1.mlp.down_proj.bias", DOWN.replace("1", "3")
    spoilt("missing", path, {DOWN: None}, DOWN, "missing")
    spoilt("unexpected", path, {bias: torch.ones(24)}, bias, "unexpected")
    spoilt("another layer", path, {fourth: down}, fourth, "unexpected")


def check_shapes(path: Path) -> None:
    """Other sizes, and the same numbers in another shape."""
    good = read_tensors(path / FILE)
    down, norm = good[DOWN], good[NORM]
    spoilt("longer", path, {NORM: torch.ones(25)}, NORM, "25", "24")
    spoilt("shorter", path, {DOWN: down[:, 1:]}, DOWN)
    spoilt("transposed", path, {DOWN: down.T}, DOWN, "[40, 24]", "[24, 40]")
    spoilt("flat", path, {DOWN: down.flatten()}, DOWN, "960")
    spoilt("deeper", path, {NORM: norm[:, None]}, NORM, "[24, 1]")
    spoilt("a scalar", path, {NORM: torch.tensor(1.0)}, NORM, "[]")


def check_dtypes(path: Path) -> None:
    """Integers and float8, which want scales that we do not read."""
    down = read_tensors(path / FILE)[DOWN]
    for dtype, word in (
        (torch.int32, "I32"),
        (torch.int8, "I8"),
        (torch.float8_e4m3fn, "F8_E4M3"),
    ):
        spoilt(word, path, {DOWN: down.to(dtype)}, DOWN, word)


def check_all_at_once(path: Path) -> None:
    """One error tells all that is wrong."""
    bias = "model.layers.1.mlp.down_proj.bias"
    q, k = (f"model.layers.2.self_attn.{x}_proj.weight" for x in "qk")
    ints = read_tensors(path / FILE)[k].int()
    changes = {DOWN: None, q: None, bias: torch.ones(24), NORM: torch.ones(25), k: ints}
    spoilt("all at once", path, changes, DOWN, q, bias, NORM, k, "I32")


def check_models(path: Path) -> None:
    """A sound file, and a model that it cannot fill."""
    strange = sevens({"norm.weight": (24,), "extra": (3,)})
    refused("a parameter too many", path, "extra", model=strange)
    refused("a scalar parameter", path, NORM, model=sevens({"norm.weight": ()}))
    meta = sevens({"norm.weight": (24,)}).to("meta")
    refused("no memory", path, "norm.weight", "to_empty", model=meta)


def check_bad_tuples(path: Path) -> None:
    """Tuples in a map whose tensors are missing, or do not add up."""
    index = read_index(path)
    q, k, v = (f"model.layers.0.self_attn.{x}_proj.weight" for x in "qkv")
    for what, shape, names, word in (
        ("a row short", (79, 24), (q, k, v), "40, 24"),
        ("too wide", (80, 25), (q, k, v), "80, 25"),
        ("one missing", (80, 24), (q, k, "none"), "none"),
        ("one of another width", (80, 24), (q, DOWN), "24, 40"),
        ("no names", (80, 24), (), "qkv"),
    ):
        model = empty_model({"qkv": shape})
        _, found = attempt(what, plan_copies, model, {"qkv": names}, index)
        told = any(word in problem for problem in found)
        agree(f"a fused map, {what}: told in {found}", told, True)


def check_sizes(path: Path) -> None:
    """Before a model is made, a config that is wrong about a size."""
    config = ModelConfig.from_pretrained(path)
    right = config.tensor_shapes()
    attempt("the right sizes", refuse_other_sizes, config, path)
    for size in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
    ):
        wrong = replace(config, **{size: 2 * getattr(config, size)})
        error = refusal(f"{size} doubled", refuse_other_sizes, wrong, path)
        changed = [name for name, shape in wrong.tensor_shapes().items() if shape != right[name]]
        named = any(name in error for name in changed)
        agree(f"{size} doubled: the tensor is named", named, True)
