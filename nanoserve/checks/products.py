"""oneDNN's products held against HuggingFace, and against torch's own: Day 11."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nanoserve.checks.caching import by_largest
from nanoserve.checks.common import F32, agree, attempt, holds
from nanoserve.checks.costs import exactly
from nanoserve.checks.model import VARIANTS, make, tokens
from nanoserve.checks.model_loading import load
from nanoserve.checks.products_switch import (
    THERE,
    Products,
    check_one_product,
    check_own_kind,
    check_switch,
)
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.cost import step_cost
from nanoserve.model import Llama
from nanoserve.products import use_onednn
from nanoserve.reference import prompt

ROWS = ((1, 1), (3, 1), (1, 16))  # texts and tokens: 1, 3 and 16 rows, and all of a prompt


@contextmanager
def onednn(model: Llama, name: str) -> Iterator[None]:
    """A model on oneDNN, and put back: its weights are the same memory all the while."""
    places = {key: tensor.data_ptr() for key, tensor in model.state_dict().items()}
    agree(f"use_onednn of {name}", attempt("use_onednn", use_onednn, model), THERE)
    try:
        yield
        kept = {key: tensor.data_ptr() for key, tensor in model.state_dict().items()}
        agree(f"where the weights of {name} lie", kept, places)
    finally:
        agree(f"use_onednn of {name}, off", use_onednn(model, False), False)


@torch.inference_mode()
def check_products(board: Scoreboard, path: Path, theirs: nn.Module, model: Llama) -> None:
    """Every block's output and the scores, at several numbers of rows; then torch's own again.

    HuggingFace's operations are counted as they run: those on the meta device are no others.
    """
    ids, _ = prompt(path, theirs.config)
    before = model.logits(model(ids[:1, :2]))
    with onednn(model, path.name):
        for B, T in (*ROWS, (1, ids.shape[1])):
            few = ids.flatten()[: B * T].view(B, T)
            with FlopCounterMode(display=False) as counter:
                out = theirs(few, use_cache=False, output_hidden_states=True)
            counted = step_cost(model.config, batch=B, new=T, scored=T).values()
            flops = sum(part.flops for part in counted)
            total = counter.get_total_flops()
            exactly(board, path, "operations, really run", f"{B} x {T} tokens", flops, total)
            with Products() as made:
                states = model.hidden_states(few)
                scores = model.logits(states[-1])
            name = f"{B} x {T} tokens"
            check_products_of(model, made, name)
            # Of the largest so far: what a block takes back leaves its rounding behind, and in
            # SmolLM2 values of 653 come down to 106. HuggingFace's last state has its norm already.
            largest = torch.zeros(())
            for i, (mine, right) in enumerate(zip(states[:-1], out.hidden_states, strict=False)):
                largest = torch.maximum(largest, right.abs().max())
                full = f"before block {i}, {name}"
                by_largest(board, path, "states by oneDNN", full, mine, right, largest)
            largest = out.logits.abs().max()
            by_largest(board, path, "scores by oneDNN", name, scores, out.logits, largest)
    holds("off must be to the bit what was before", model.logits(model(ids[:1, :2])).equal(before))


def check_products_of(model: Llama, made: Products, name: str) -> None:
    """A pass makes seven products a block, its matrices, and the head: by which library?"""
    products = 7 * len(model.blocks) + 1
    wanted = (products, 0) if THERE else (0, products)
    agree(f"products by oneDNN and by torch, {name}", (made.onednn, made.torch), wanted)


def check_made_products(board: Scoreboard) -> None:
    """On made models: untied heads, heads of other widths, the switch, one product alone."""
    check_one_product()
    for variant in VARIANTS:
        theirs = make(variant).eval()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / MADE_UP
            theirs.save_pretrained(path)
            model = load(path)
        check_products_made(board, path, theirs, model)
        check_switch(model)
        check_own_kind(model)


@torch.inference_mode()
def check_products_made(board: Scoreboard, path: Path, theirs: nn.Module, model: Llama) -> None:
    """Scores of a made model, many rows."""
    with onednn(model, path.name):
        for B, T in ((1, 1), (2, 9), (1, 130)):
            ids = tokens(B, T)
            right = theirs(ids, use_cache=False).logits
            with Products() as made:
                mine = model.logits(model(ids))
            name = f"{B} x {T} tokens"
            check_products_of(model, made, name)
            by_largest(board, path, "scores by oneDNN", name, mine, right, right.abs().max())
    agree("dtype of a model after it", {p.dtype for p in model.parameters()}, {F32})
