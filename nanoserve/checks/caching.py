"""The KV cache held against HuggingFace's, and against no cache: Day 10."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from nanoserve.cache import KVCache
from nanoserve.checks.cache_places import check_places
from nanoserve.checks.cache_reading import poison, poisoned, read, same
from nanoserve.checks.common import F32, agree, attempt, holds
from nanoserve.checks.generating_cached import check_generate, check_greedy_texts
from nanoserve.checks.model import VARIANTS, make, tokens
from nanoserve.checks.model_loading import load_saved
from nanoserve.comparison import Scoreboard
from nanoserve.model import Llama
from nanoserve.reference import prompt, transformers


def by_largest(
    board: Scoreboard,
    path: Path | None,
    what: str,
    name: str,
    mine: torch.Tensor,
    theirs: torch.Tensor,
    largest: torch.Tensor,
) -> None:
    """Hold `mine` against `theirs` within 1e-5 of the largest value there is.

    In passes of another length, sums are taken in another order.
    """
    what = f"{what}, of the largest"
    board.compare(path, what, name, mine / largest, theirs / largest, rtol=0)


def in_chunks(T: int) -> Iterator[tuple[str, list[int]]]:
    """Ways to cut T tokens into passes."""
    yield "whole", [T]
    for n in (n for n in (1, 3, 16) if n < T):
        rest = [T % n] if T % n else []
        yield f"in chunks of {n}", [n] * (T // n) + rest


@torch.inference_mode()
def check_cache(board: Scoreboard, path: Path | None, theirs: nn.Module, model: Llama, ids) -> None:
    """Keys, values and scores of ids (B, T), whole, in chunks, and by going on from a cut."""
    B, T = ids.shape
    wanted = theirs(ids, use_cache=False).logits  # (B, T, V), without a cache
    dynamic = transformers.DynamicCache(config=theirs.config)
    theirs(ids, past_key_values=dynamic, use_cache=True)
    one = poisoned(model, B, T + 2)  # for all: nothing may stay from an earlier text

    layers = {
        "keys": (one.k, [layer.keys for layer in dynamic.layers]),
        "values": (one.v, [layer.values for layer in dynamic.layers]),
    }

    def hold(how: str, scores: torch.Tensor, start: int = 0) -> None:
        name, largest = f"{B} x {T} tokens {how}", wanted.abs().max()
        early = "no place may be read before it is written; until then it holds NaN"
        holds(f"{name}: {early}", not scores.isnan().any().item(), "there is NaN in the scores")
        by_largest(board, path, "scores", name, scores, wanted[:, start:], largest)
        for what, (held, theirs) in layers.items():
            largest = max(layer.abs().max() for layer in theirs)
            for i, right in enumerate(theirs):
                full = f"{what} of layer {i}, {name}"
                by_largest(board, path, what, full, held[i, :, :, :T], right, largest)

    for how, sizes in in_chunks(T):
        attempt("truncate(0)", one.truncate, 0)
        poison(one, 0)
        hold(how, read(model, one, ids, sizes))
    cut = T // 2
    one.truncate(cut)
    poison(one, cut)
    other = ids[:, :3].flip(1)
    read(model, one, other, [2, 1])  # another end, which is taken back
    one.truncate(cut)
    hold("after another end was cut off", read(model, one, ids[:, cut:], [T - cut - 1, 1]), cut)
    check_poke(model, one, ids)


@torch.inference_mode()
def check_poke(model: Llama, cache: KVCache, ids: torch.Tensor) -> None:
    """The last key, changed in one text and one layer, moves that text's later scores alone."""
    B, T = ids.shape
    n, last = T - 2, len(cache.k) - 1
    pokes = (0, cache.k, 0), (last, cache.k, B - 1), (last, cache.v, 0)
    for layer, held, row in pokes if last < 4 else pokes[1:2]:  # few in slow models
        cache.truncate(n)
        before = read(model, cache, ids[:, n:], [1, 1])
        kept = held[layer, row, :, n - 1].clone()
        held[layer, row, :, n - 1] += 1
        cache.truncate(n)
        after = read(model, cache, ids[:, n:], [1, 1])
        moved = (after != before).any(-1)  # (B, 2)
        wanted = torch.zeros_like(moved)
        wanted[row] = True
        what = f"texts and steps that move when the last key of layer {layer}, text {row} does"
        agree(what, moved.nonzero().tolist(), wanted.nonzero().tolist())
        # The scores of the poked token itself and of those before it do not.
        cache.truncate(n - 2)
        again = read(model, cache, ids[:, n - 2 :], [2, 1, 1])[:, 2:]
        held[layer, row, :, n - 1] = kept
        what = "scores after the poked token was read anew"
        torch.testing.assert_close(again, before, rtol=1e-4, atol=1e-4, msg=f"{what} differ")


@torch.inference_mode()
def check_rows(model: Llama) -> None:
    """Three texts of equal length give what each gives alone."""
    ids, sizes = tokens(3, 21), [13, 1, 5, 1, 1]
    wanted = [read(model, poisoned(model, 1, 21), row[None], sizes) for row in ids]
    mine = read(model, poisoned(model, 3, 21), ids, sizes)
    for row, (scores, alone) in enumerate(zip(mine, wanted, strict=True)):
        holds(f"text {row} of 3 must have the scores that it has alone", same(scores, alone[0]))


@torch.inference_mode()
def check_state(model: Llama) -> None:
    """A second text, and one after a pass that failed half way, are as in a new cache."""
    first, second = tokens(2, 30)[:, None]  # (1, 30) each
    wanted = read(model, poisoned(model, 1, 30), second[:, :20], [12, 1, 7])
    cache = poisoned(model, 1, 30)
    read(model, cache, first, [30])
    cache.truncate(0)
    mine = read(model, cache, second[:, :20], [12, 1, 7])
    agree("length after a second text", cache.length, 20)
    holds("a second text in one cache must have the scores it has in a new one", same(mine, wanted))
    for broken in range(len(model.blocks)):
        cache.truncate(12)
        attends = cache.attends()

        def fail(*qkv):
            raise RuntimeError("as if memory ran out")

        attends[broken] = fail
        try:
            model(first[:, :5], cache.length + torch.arange(5), attends)
        except RuntimeError:
            agree(f"length after a pass that failed in layer {broken}", cache.length, 12)
        mine = read(model, cache, second[:, 12:20], [1, 7])
        must = f"after a pass that failed in layer {broken} the cache must be as before it"
        holds(must, same(mine, wanted[:, 12:]))


def check_caches(board: Scoreboard) -> None:
    """On made models: everything that big checkpoints are too slow for, or cannot show."""
    for variant in VARIANTS:
        theirs = make(variant | {"max_position_embeddings": 64}).eval()
        theirs.generation_config = transformers.GenerationConfig()
        model = load_saved(theirs)
        for B, T in ((1, 63), (2, 5)):
            check_cache(board, None, theirs, model, tokens(B, T))
        check_rows(model)
        check_state(model)
        check_places(model.config, F32)
        check_places(replace(model.config, num_hidden_layers=1), torch.bfloat16)
        check_greedy_texts(model)
        if variant is VARIANTS[0]:  # its promises do not depend on the sizes
            check_generate(model)


def text(path: Path, config) -> torch.Tensor:
    """Ids (1, T) to hold a checkpoint's cache against theirs."""
    ids, _ = prompt(path, config)
    return ids[:1, :11]
