"""oneDNN's products held against HuggingFace, and against torch's own: Day 11."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode

from nanoserve.checks.caching import by_largest
from nanoserve.checks.common import BF16, F32, F64, agree, attempt, holds
from nanoserve.checks.model import VARIANTS, make, tokens
from nanoserve.checks.model_loading import load
from nanoserve.comparison import MADE_UP, Scoreboard, compare
from nanoserve.layers import Linear
from nanoserve.model import Llama
from nanoserve.products import ONEDNN, onednn_linear, use_onednn
from nanoserve.reference import prompt

THERE = torch.backends.mkldnn.is_available() and ONEDNN is not None
ROWS = ((1, 1), (1, 2), (3, 1), (1, 16), (3, 11))  # texts and tokens: 1, 2, 3, 16 and 33 rows
WIDTHS = ((64, 96), (576, 192), (24, 61), (1, 1))  # in and out
KINDS = ((1,), (2,), (3,), (16,), (33,), (2, 5), (0,), ())  # what stands before the width


class Products(TorchDispatchMode):
    """Counts the products that are made meanwhile, by the library that makes them."""

    def __init__(self):
        super().__init__()
        self.onednn = self.torch = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        self.onednn += "_linear_pointwise" in name
        self.torch += name.startswith(("aten.mm", "aten.addmm", "aten.linear"))
        return func(*args, **(kwargs or {}))


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
    """Every block's output and the scores, at several numbers of rows; then torch's own again."""
    ids, _ = prompt(path, theirs.config)
    before = model.logits(model(ids[:1, :2]))
    with onednn(model, path.name):
        for B, T in (*ROWS, (1, ids.shape[1])):
            few = ids.flatten()[: B * T].view(B, T)
            out = theirs(few, use_cache=False, output_hidden_states=True)
            with Products() as made:
                states = model.hidden_states(few)
                scores = model.logits(states[-1])
            name = f"{B} x {T} tokens"
            products = 7 * len(model.blocks) + 1  # a block's matrices, and the head
            wanted = (products, 0) if THERE else (0, products)
            agree(f"products by oneDNN and by torch, {name}", (made.onednn, made.torch), wanted)
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


def check_one_product() -> None:
    """`onednn_linear` on its own: shapes, layouts, dtypes, other devices, gradients."""
    seeded = torch.Generator().manual_seed(0)

    def made(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=seeded)

    def same(what: str, x: torch.Tensor, weight: torch.Tensor) -> None:
        mine, right = attempt(what, onednn_linear, x, weight), linear(x, weight)
        agree(f"{what}: shape", [*mine.shape], [*right.shape])
        if right.numel() and not right.is_meta:
            largest = right.abs().max()
            compare(what, mine / largest, right / largest, rtol=0)

    for width, out in WIDTHS:
        weight = made(out, width)
        for before in KINDS:
            same(f"{[*before, width]} by {[out, width]}", made(*before, width), weight)
        same("rows that lie apart", made(3, 2 * width)[:, ::2], weight)
        same("rows that are columns", made(width, 3).T, weight)
        same("a weight that is a transpose", made(3, width), made(width, out).T)
        same("a weight that is a part", made(3, width), made(2 * out, width)[::2])
        for dtype in (F64, BF16):
            same(f"in {dtype}", made(3, width).to(dtype), weight.to(dtype))
        same("on the meta device", made(3, width).to("meta"), weight.to("meta"))
    check_gradient(made(3, 24), made(61, 24))


@torch.enable_grad()
def check_gradient(x: torch.Tensor, weight: torch.Tensor) -> None:
    """Where a gradient is wanted it is torch's own."""
    for learns in ("x", "weight"):
        found = []
        for product in (onednn_linear, linear):
            given = {"x": x.clone(), "weight": weight.clone()}
            given[learns].requires_grad_()
            result = product(given["x"], given["weight"])
            holds(f"a product must have a gradient for {learns}", result.requires_grad)
            result.square().sum().backward()
            found.append(given[learns].grad)
        compare(f"gradient of {learns}", *found)


def check_switch(model: Llama) -> None:
    """On twice, off twice; a copy has weights of its own; other dtypes are left alone."""
    ids = tokens(2, 5)
    with torch.inference_mode():
        before = model.logits(model(ids))
    kinds = [type(module) for module in model.modules()]
    for on in (True, True, False, False):
        agree(f"use_onednn, {on}", use_onednn(model, on), on and THERE)
        swapped = [m for m in model.modules() if isinstance(m, Linear) and type(m) is not Linear]
        holds("on must change every Linear, off none", bool(swapped) == (on and THERE))
    agree("the kinds of modules after off", [type(m) for m in model.modules()], kinds)
    use_onednn(model)
    twin = deepcopy(model)
    with torch.inference_mode():
        for parameter in twin.parameters():
            parameter.zero_()
        compare("scores after a copy was zeroed", model.logits(model(ids)), before, 1e-4, 1e-4)
        holds("a zeroed copy must score zero", not twin.logits(twin(ids)).any().item())
        narrow = deepcopy(model).to(BF16)
        mine = narrow.logits(narrow(ids))
        agree("use_onednn of a bf16 model", use_onednn(narrow), False)
        holds("a bf16 model must be torch's own", narrow.logits(narrow(ids)).equal(mine))
        mixed = deepcopy(model)
        use_onednn(mixed, False)
        mixed.blocks[-1].to(F64)
        agree("use_onednn of a model that is partly float64", use_onednn(mixed), False)
    agree("use_onednn on the meta device", use_onednn(deepcopy(model).to("meta")), False)
    use_onednn(model, False)


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


@torch.inference_mode()
def check_products_made(board: Scoreboard, path: Path, theirs: nn.Module, model: Llama) -> None:
    """Scores of a made model, many rows."""
    with onednn(model, path.name):
        for B, T in ((1, 1), (2, 9), (1, 130)):
            ids = tokens(B, T)
            right = theirs(ids, use_cache=False).logits
            mine = model.logits(model(ids))
            name = f"{B} x {T} tokens"
            by_largest(board, path, "scores by oneDNN", name, mine, right, right.abs().max())
    agree("dtype of a model after it", {p.dtype for p in model.parameters()}, {F32})
