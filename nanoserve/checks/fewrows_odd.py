"""What must not be taken for few rows, and weights and values out of the ordinary: Day 11."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import nn

from nanoserve.checks.common import BF16, F16, agree, attempt, holds
from nanoserve.checks.model import tokens
from nanoserve.checks.products_switch import Products
from nanoserve.comparison import compare
from nanoserve.cpu.fewrows import MOST, FewRowsBlock, as_read, use_few_rows
from nanoserve.layers import Linear, TransformerBlock
from nanoserve.model import Llama

MADE = "a made model"


@contextmanager
def few_rows(model: Llama, name: str) -> Iterator[None]:
    """A model whose few rows go through the loops, and put back."""
    product = model.product
    for _ in range(2):  # the second time changes nothing
        agree(f"use_few_rows of {name}", attempt("use_few_rows", use_few_rows, model), True)
    try:
        yield
    finally:
        agree(f"use_few_rows of {name}, off", use_few_rows(model, False), False)
        kinds = {type(block) for block in model.blocks}
        agree(f"the blocks of {name} after off", kinds, {TransformerBlock})
        agree(f"the head's product of {name} after off", model.product, product)


def few(model: Llama, ids: torch.Tensor, places: torch.Tensor | None = None) -> tuple:
    """States and scores; products that are not the loops' are counted."""
    with Products() as made:
        states = attempt("hidden_states", model.hidden_states, ids, places)
        scores = attempt("logits", model.logits, states[-1])
    wanted = 0 if ids.numel() <= MOST else 7 * len(model.blocks) + 1
    agree(f"products by libraries, {ids.numel()} rows", made.onednn + made.torch, wanted)
    return states, scores


def plainly(model: Llama, ids: torch.Tensor) -> torch.Tensor:
    """Scores by a copy without loops."""
    plain = deepcopy(model)
    use_few_rows(plain, False)
    return plain.logits(plain(ids))


def same_as_plain(what: str, model: Llama, ids: torch.Tensor) -> None:
    """Its scores by the loops, and those of a copy that has none."""
    compare(what, few(model, ids)[1], plainly(model, ids), 1e-4, 1e-4)


def check_odd(model: Llama) -> None:
    """All that is here."""
    check_narrow(model)
    check_changed(model)
    check_not_finite(model)
    check_others(model)


@torch.no_grad()  # in inference mode a copy's tensors would be read as they are
def check_narrow(model: Llama) -> None:
    """Weights that are bf16 numbers are read in 16 bits, and others as they are."""
    weight = model.blocks[0].mlp.up_proj.weight
    narrow = weight.to(BF16).float()
    for what, weights, bytes_each in (
        ("bf16 numbers", (narrow, -narrow), 2),
        ("float32 numbers", (weight,), 4),
        ("one of two", (narrow, weight), 4),
        ("NaN", (torch.full_like(weight, torch.nan),), 4),
        ("infinity", (torch.full_like(weight, -torch.inf),), 2),
    ):
        agree(f"bytes of a weight, {what}", {a.itemsize for a in as_read(weights)}, {bytes_each})
    for dtype in (BF16, F16):
        other = deepcopy(model).to(dtype).float()
        with few_rows(other, f"{MADE}, in {dtype} numbers"):
            same_as_plain("scores of a rounded model", other, tokens(2, 2))


def check_changed(model: Llama) -> None:
    """Weights that change afterwards count, and those of a copy are its own.

    In inference mode a copy's tensors do not count what is written to them.
    """
    ids, narrow = tokens(2, 2), deepcopy(model).to(BF16).float()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode(), few_rows(narrow, MADE):
            before, twin = few(narrow, ids)[1], deepcopy(narrow)
            few(twin, ids)
            for change in (0.5, 4, 0.9):
                for parameter in twin.parameters():
                    parameter *= change
                same_as_plain("scores of a changed copy", twin, ids)
            holds("a copy's change is not the original's", few(narrow, ids)[1].equal(before))
            mlp = twin.blocks[0].mlp
            for factor in (2, 3):
                mlp.up_proj.weight = nn.Parameter(mlp.up_proj.weight * factor, False)
                same_as_plain("scores with another weight put in", twin, ids)
    with torch.no_grad(), few_rows(narrow, MADE):
        weight = narrow.blocks[0].mlp.up_proj.weight
        wide = weight.double()
        for _ in range(8):
            few(narrow, ids)
            weight.data = wide.neg_()  # nothing else of its size is freed in between,
            weight.data = wide.float()  # so this may come to lie where the last one lay
            same_as_plain("scores with other memory put in", narrow, ids)


@torch.no_grad()
def check_not_finite(model: Llama) -> None:
    """NaN and infinity, in a weight or a state, end up where plain torch has them."""
    ids = tokens(1, 3)
    for each in (deepcopy(model), deepcopy(model).to(BF16).float()):
        last = each.blocks[-1]
        with few_rows(each, MADE):
            for place in (last.mlp.down_proj, last.mlp.gate_proj, last.attn.v_proj, each.embed):
                for value in (torch.nan, torch.inf, -torch.inf):
                    weight, row = place.weight, ids[0, -1] % len(place.weight)
                    kept = weight[row, 1].item()
                    weight[row, 1] = value
                    states, plain = few(each, ids)[0], deepcopy(each)
                    use_few_rows(plain, False)
                    for mine, right in zip(states, plain.hidden_states(ids), strict=True):
                        same = mine.allclose(right, 1e-4, 1e-4, equal_nan=True)
                        holds(f"{value} in a weight {[*weight.shape]} must be as in torch", same)
                    weight[row, 1] = kept


def check_others(model: Llama) -> None:
    """Gradients, other dtypes, parts of a reader's own: as if nothing had been switched."""

    class Halved(Linear):
        """As a reader's quantized layer would be: with a product of its own."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) / 2

    ids = tokens(1, 3)
    own = deepcopy(model)
    mlp = own.blocks[0].mlp
    mlp.down_proj = Halved(*reversed(mlp.down_proj.weight.shape))
    mlp.down_proj.weight = model.blocks[0].mlp.down_proj.weight
    with torch.no_grad():
        right = own.logits(own(ids))
        use_few_rows(own)
        kinds = [type(block) is FewRowsBlock for block in own.blocks]
        agree("blocks that are switched, the first has a reader's part", kinds[:2], [False, True])
        compare("scores with a reader's part", own.logits(own(ids)), right, 1e-4, 1e-4)
        agree("use_few_rows of a bf16 model", use_few_rows(deepcopy(model).to(BF16)), False)
        later = deepcopy(model)
        with few_rows(later, MADE):
            later.double()
            right = plainly(later, ids)
            mine = later.logits(later(ids))
            holds("a model that is float64 since must be torch's own", mine.equal(right))
    for learns in ("the embedding", "a norm", "a product"):
        with few_rows(model, MADE), torch.enable_grad():
            place = {"the embedding": model.embed, "a norm": model.blocks[-1].attn_norm}
            weight = place.get(learns, model.blocks[-1].mlp.up_proj).weight.requires_grad_()
            try:
                attempt(f"gradient of {learns}", model.logits(model(ids)).square().sum().backward)
                holds(f"{learns} must have a gradient", weight.grad is not None)
            finally:
                weight.requires_grad_(False).grad = None
