"""One product by oneDNN, and which models are switched to it: Day 11."""

from copy import deepcopy

import torch
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode

from nanoserve.checks.common import BF16, F64, agree, attempt, holds
from nanoserve.checks.model import tokens
from nanoserve.comparison import compare
from nanoserve.layers import Linear
from nanoserve.model import Llama
from nanoserve.products import ONEDNN, onednn_linear, use_onednn

THERE = torch.backends.mkldnn.is_available() and ONEDNN is not None
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
        with torch.no_grad(), Products() as made:
            onednn_linear(**given)
        wanted = (1, 0) if THERE else (0, 1)
        what = f"products by oneDNN and by torch, no gradient wanted of {learns}"
        agree(what, (made.onednn, made.torch), wanted)


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
    changed = deepcopy(model)
    use_onednn(model)
    twin = deepcopy(model)
    with torch.inference_mode():
        for parameter in (*changed.parameters(), *twin.parameters()):
            parameter *= 0.9
        with Products() as made:
            wanted = changed.logits(changed(ids))
        agree("products by oneDNN of a model that was not switched", made.onednn, 0)
        compare("scores of a changed copy", twin.logits(twin(ids)), wanted, 1e-4, 1e-4)
        compare("scores when a copy was changed", model.logits(model(ids)), before, 1e-4, 1e-4)
        narrow, wanted = deepcopy(model).to(BF16), changed.to(BF16)
        for parameter, value in zip(narrow.parameters(), wanted.parameters(), strict=True):
            value.copy_(parameter)
        mine = attempt("a model that is bf16 since", narrow, ids)
        holds("a bf16 model must be torch's own", mine.equal(wanted(ids)))
        agree("use_onednn of a bf16 model", use_onednn(narrow), False)
        mixed = deepcopy(model)
        use_onednn(mixed, False)
        mixed.blocks[-1].to(F64)
        agree("use_onednn of a model that is partly float64", use_onednn(mixed), False)
    agree("use_onednn on the meta device", use_onednn(deepcopy(model).to("meta")), False)
    use_onednn(model, False)


@torch.inference_mode()
def check_own_kind(model: Llama) -> None:
    """A layer of a reader's own is not ours to change."""

    class Halved(Linear):
        """As a reader's quantized layer would be: with a product of its own."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return linear(x, self.weight) / 2

    block, ids = model.blocks[0].mlp, tokens(1, 3)
    kept, own = block.down_proj, Halved(*reversed(block.down_proj.weight.shape))
    own.weight = kept.weight
    block.down_proj = own
    before = model.logits(model(ids))
    for on in (True, False):
        use_onednn(model, on)
        agree(f"the kind of a reader's own layer, {on}", type(block.down_proj), Halved)
    holds("off must be to the bit what was before", model.logits(model(ids)).equal(before))
    block.down_proj = kept
