"""How a model that takes few rows by loops is called and switched: Day 11."""

import threading
from copy import deepcopy

import torch
from torch import nn

from nanoserve.checks.common import F64, agree, alike, attempt, holds, must_raise
from nanoserve.checks.fewrows_odd import MADE, few, few_rows, same_as_plain
from nanoserve.checks.model import tokens
from nanoserve.checks.products_switch import THERE, Products
from nanoserve.cpu import make_fast
from nanoserve.cpu.fewrows import MOST, FewRowsBlock, FewRowsHead
from nanoserve.model import Llama


def check_calls(model: Llama) -> None:
    """All that is here."""
    check_company(model)
    check_defaults(model)
    check_sizes(model)
    check_fast(model)


@torch.inference_mode()
def check_company(model: Llama) -> None:
    """A row is the same to the bit whoever stands beside it, on however many threads."""
    ids = tokens(MOST, 1)
    with few_rows(model, MADE):
        together = few(model, ids)[1]
        alone = [few(model, ids[i : i + 1])[1] for i in range(MOST)]
        holds("a row alone is itself in company", torch.cat(alone).equal(together))
        found = []

        def work() -> None:
            with torch.inference_mode():
                found.extend(model.logits(model(ids)) for _ in range(4))

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        same = len(found) == 8 and all(f.equal(together) for f in found)
        holds("two threads at once, as one", same)


@torch.inference_mode()
def check_defaults(model: Llama) -> None:
    """torch's default dtype is no matter; a weight that lies otherwise is left to torch."""
    ids = tokens(2, 2)
    with few_rows(model, MADE):
        right = few(model, ids)[1]
        torch.set_default_dtype(F64)
        try:
            mine = few(model, ids)[1]
        finally:
            torch.set_default_dtype(torch.float32)
        holds("scores must be the same with another default dtype", alike(mine, right))
        twin = deepcopy(model)
        weight = twin.blocks[0].mlp.up_proj.weight
        turned = nn.Parameter(weight.T.contiguous().T, False)
        twin.blocks[0].mlp.up_proj.weight = turned
        with Products() as made:
            twin(ids)
        agree("products by libraries, of a block with a transpose", made.onednn + made.torch, 7)


@torch.inference_mode()
def check_sizes(model: Llama) -> None:
    """What does not fit is an error: a loop would read past the end of a weight."""
    C, D = model.config.hidden_size, model.config.head_dim
    x, cos = torch.ones(1, 2, C), torch.ones(2, D)
    block = model.blocks[0]
    with few_rows(model, MADE):
        for what, given in {
            "x too wide": (torch.ones(1, 2, C + 8), cos, cos),
            "cos and sin too narrow": (x, torch.ones(2, D // 2), torch.ones(2, D // 2)),
            "cos and sin of 3 tokens for 2": (x, torch.ones(3, D), torch.ones(3, D)),
            "a mix too wide": (x, cos, cos, lambda q, k, v: torch.cat([q, q], 1)),
        }.items():
            must_raise(RuntimeError, f"a block, {what}", block, *given)
        must_raise(RuntimeError, "the head, x too wide", model.product, x.repeat(1, 1, 2), x[0])


@torch.inference_mode()
def check_fast(model: Llama) -> None:
    """`make_fast` switches both, again and again, and puts all back."""
    ids, many = tokens(2, 2), tokens(2, MOST)
    before = [model.logits(model(given)) for given in (ids, many)]
    kinds, product = [type(module) for module in model.modules()], model.product
    for on in (True, True, False, False, True, False):
        attempt(f"make_fast, {on}", make_fast, model, on)
        fast = [isinstance(block, FewRowsBlock) for block in model.blocks]
        agree(f"blocks that take few rows, {on}", set(fast), {on})
        agree(f"a head that takes few rows, {on}", isinstance(model.product, FewRowsHead), on)
        if on:
            same_as_plain("scores, make_fast", model, ids)
        with Products() as made:
            scores = [model.logits(model(given)) for given in (ids, many)]
        agree(f"oneDNN takes many rows, {on}", made.onednn > 0, on and THERE)
        if not on:
            same = all(map(torch.equal, scores, before))
            holds("off must be to the bit what was before", same)
    agree("the kinds of modules after off", [type(m) for m in model.modules()], kinds)
    agree("the head's product after off", model.product, product)
