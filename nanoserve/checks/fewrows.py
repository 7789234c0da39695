"""Few rows by compiled loops, held against HuggingFace and against many rows: Day 11."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn

from nanoserve.cache import KVCache
from nanoserve.checks.caching import by_largest
from nanoserve.checks.common import BF16, agree, attempt, holds
from nanoserve.checks.model import VARIANTS, make, tokens
from nanoserve.checks.model_loading import load
from nanoserve.checks.products_switch import Products
from nanoserve.comparison import MADE_UP, Scoreboard, compare
from nanoserve.cpu.fewrows import MOST, FewRowsBlock, as_read, use_few_rows
from nanoserve.generate import next_logits
from nanoserve.layers import Linear, TransformerBlock
from nanoserve.model import Llama
from nanoserve.reference import prompt

ROWS = ((1, 1), (1, MOST), (1, MOST + 1))  # texts and tokens


@contextmanager
def few_rows(model: Llama, name: str) -> Iterator[None]:
    """A model whose few rows go through the loops, and put back."""
    agree(f"use_few_rows of {name}", attempt("use_few_rows", use_few_rows, model), True)
    try:
        yield
    finally:
        agree(f"use_few_rows of {name}, off", use_few_rows(model, False), False)
        kinds = {type(block) for block in model.blocks}
        agree(f"the blocks of {name} after off", kinds, {TransformerBlock})


def few(model: Llama, ids: torch.Tensor, rows: int) -> tuple[list, torch.Tensor]:
    """States and scores of `rows` rows; other products than the loops' are counted."""
    with Products() as made:
        states = model.hidden_states(ids)
        scores = model.logits(states[-1])
    wanted = 0 if rows <= MOST else 7 * len(model.blocks) + 1
    agree(f"products by libraries, {rows} rows", made.onednn + made.torch, wanted)
    return states, scores


@torch.inference_mode()
def check_few_rows(board: Scoreboard, path: Path, theirs: nn.Module, model: Llama) -> None:
    """Every block's output and the scores, alone and in company; then as before, to the bit."""
    ids, _ = prompt(path, theirs.config)
    before = model.logits(model(ids[:1, :2]))
    with few_rows(model, path.name):
        for B, T in ROWS:
            given = ids.flatten()[: B * T].view(B, T)
            out = theirs(given, use_cache=False, output_hidden_states=True)
            states, scores = few(model, given, B * T)
            name, largest = f"{B} x {T} tokens", torch.zeros(())
            for i, (mine, right) in enumerate(zip(states[:-1], out.hidden_states, strict=False)):
                largest = torch.maximum(largest, right.abs().max())
                full = f"before block {i}, {name}"
                by_largest(board, path, "states, few rows", full, mine, right, largest)
            largest = out.logits.abs().max()
            by_largest(board, path, "scores, few rows", name, scores, out.logits, largest)
    holds("off must be to the bit what was before", model.logits(model(ids[:1, :2])).equal(before))


def check_made_few_rows(board: Scoreboard) -> None:
    """On made models: untied heads and other widths; and what must not be taken for few rows."""
    for variant in VARIANTS:
        theirs = make(variant).eval()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / MADE_UP
            theirs.save_pretrained(path)
            model = load(path)
        check_widths(board, path, theirs, model)
    check_narrow(model)
    check_changed(model)
    check_others(model)
    check_company(model)


@torch.inference_mode()
def check_widths(board: Scoreboard, path: Path, theirs: nn.Module, model: Llama) -> None:
    """Scores with and without a cache, in 32 bits: made weights are no bf16 numbers."""
    with few_rows(model, path.name):
        for B, T in ((1, 1), (2, 3), (1, MOST), (4, 3)):
            ids = tokens(B, T)
            right, (_, mine) = theirs(ids, use_cache=False).logits, few(model, ids, B * T)
            name = f"{B} x {T} tokens"
            by_largest(board, path, "scores, few rows", name, mine, right, right.abs().max())
        ids = tokens(1, 21)
        right, cache = theirs(ids, use_cache=False).logits[0], KVCache(model.config, 1, 21)
        for start, end in ((0, 12), (12, 13), (13, 17), (17, 18), (18, 21)):
            mine, name = next_logits(model, cache, ids[0, start:end].tolist()), f"cached, to {end}"
            largest = right[end - 1].abs().max()
            by_largest(board, path, "scores, few rows", name, mine, right[end - 1], largest)


@torch.inference_mode()
def check_narrow(model: Llama) -> None:
    """Weights that are bf16 numbers are read in 16 bits, and others as they are."""
    weight = model.blocks[0].mlp.up_proj.weight.detach()
    narrow = weight.to(BF16).float()
    for what, weights, bytes_each in (
        ("bf16 numbers", (narrow, -narrow), 2),
        ("float32 numbers", (weight,), 4),
        ("one of two", (narrow, weight), 4),
        ("NaN", (torch.full_like(weight, torch.nan),), 4),
        ("infinity", (torch.full_like(weight, -torch.inf),), 2),
    ):
        agree(f"bytes of a weight, {what}", {a.itemsize for a in as_read(weights)}, {bytes_each})
    with few_rows(model, "a made model, in bf16 numbers"):
        for other in (rounded(model), rounded(model, torch.float16)):
            same_as_plain("scores of a rounded model", other, tokens(2, 2))


def rounded(model: Llama, dtype: torch.dtype = BF16) -> Llama:
    """A copy, in float32 numbers that a dtype has."""
    return deepcopy(model).to(dtype).float()


def check_changed(model: Llama) -> None:
    """Weights that change afterwards count, and those of a copy are its own.

    In inference mode a copy's tensors do not count what is written to them.
    """
    ids = tokens(2, 2)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode(), few_rows(model, "a made model"):
            before, twin = few(model, ids, 4)[1], deepcopy(model)
            few(twin, ids, 4)
            for change in (0.9, 1.1):
                for parameter in twin.parameters():
                    parameter *= change
                same_as_plain("scores of a changed copy", twin, ids)
            holds("a copy's change is not the original's", few(model, ids, 4)[1].equal(before))
            mlp = twin.blocks[0].mlp
            for factor in (2, 3):
                mlp.up_proj.weight = nn.Parameter(mlp.up_proj.weight * factor, False)
                same_as_plain("scores with another weight put in", twin, ids)


def same_as_plain(what: str, model: Llama, ids: torch.Tensor) -> None:
    """Its scores by the loops, and those of a copy that has none."""
    plain = deepcopy(model)
    use_few_rows(plain, False)
    compare(what, few(model, ids, ids.numel())[1], plain.logits(plain(ids)), 1e-4, 1e-4)


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
    for learns in ("the embedding", "a norm", "a product"):
        with few_rows(model, "a made model"), torch.enable_grad():
            place = {"the embedding": model.embed, "a norm": model.blocks[-1].attn_norm}
            weight = place.get(learns, model.blocks[-1].mlp.up_proj).weight.requires_grad_()
            try:
                model.logits(model(ids)).square().sum().backward()
                holds(f"{learns} must have a gradient", weight.grad is not None)
            finally:
                weight.requires_grad_(False).grad = None


@torch.inference_mode()
def check_company(model: Llama) -> None:
    """A row is the same to the bit whoever stands beside it, on however many threads."""
    ids = tokens(MOST, 1)
    with few_rows(model, "a made model"):
        together = few(model, ids, MOST)[1]
        for i in range(MOST):
            alone = few(model, ids[i : i + 1], 1)[1]
            holds("a row alone is itself in company", alone.equal(together[i : i + 1]))
        found = []

        def work() -> None:
            with torch.inference_mode():
                found.extend(model.logits(model(ids)) for _ in range(4))

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        holds(
            "two threads at once, as one", len(found) == 8 and all(f.equal(together) for f in found)
        )
