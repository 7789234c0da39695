"""Few rows by compiled loops, held against HuggingFace and against many rows: Day 11."""

import tempfile
from pathlib import Path

import torch
from torch import nn

from nanoserve.cache import KVCache
from nanoserve.checks.caching import by_largest
from nanoserve.checks.common import holds
from nanoserve.checks.fewrows_calls import check_calls
from nanoserve.checks.fewrows_odd import check_odd, few, few_rows
from nanoserve.checks.model import VARIANTS, make, tokens
from nanoserve.checks.model_loading import load
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.cpu.fewrows import MOST
from nanoserve.generate import next_logits
from nanoserve.model import Llama
from nanoserve.reference import prompt

ROWS = (1, MOST)  # tokens of one text


@torch.inference_mode()
def check_few_rows(board: Scoreboard, path: Path, theirs: nn.Module, model: Llama) -> None:
    """Every block's output and the scores; then as before, to the bit."""
    ids, _ = prompt(path, theirs.config)
    before = model.logits(model(ids[:1, :2]))
    with few_rows(model, path.name):
        for T in ROWS:
            given = ids.flatten()[None, :T]
            out = theirs(given, use_cache=False, output_hidden_states=True)
            states, scores = few(model, given)
            name, largest = f"{T} tokens", torch.zeros(())
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
    check_odd(model)
    check_calls(model)


@torch.inference_mode()
def check_widths(board: Scoreboard, path: Path, theirs: nn.Module, model: Llama) -> None:
    """Scores with and without a cache, in 32 bits: made weights are no bf16 numbers.

    Rows count from 0 where they are given no positions, else each from its own.
    """
    with few_rows(model, path.name):
        for B, T, starts in (
            (1, 1, None),
            (2, 3, None),
            (1, MOST, None),
            (1, MOST + 1, None),
            (4, 3, None),
            (3, 2, (0, 9000, 100)),
        ):
            ids, places = tokens(B, T), torch.arange(T)
            if starts:
                places = torch.tensor(starts)[:, None] + places
            right = theirs(ids, position_ids=places.expand(B, T), use_cache=False).logits
            mine, name = few(model, ids, places)[1], f"{B} x {T} tokens, first {starts or 0}"
            by_largest(board, path, "scores, few rows", name, mine, right, right.abs().max())
        ids = tokens(1, 21)
        right, cache = theirs(ids, use_cache=False).logits[0], KVCache(model.config, 1, 21)
        for start, end in ((0, 12), (12, 13), (13, 17), (17, 18), (18, 21)):
            mine, name = next_logits(model, cache, ids[0, start:end].tolist()), f"cached, to {end}"
            largest = right[end - 1].abs().max()
            by_largest(board, path, "scores, few rows", name, mine, right[end - 1], largest)
