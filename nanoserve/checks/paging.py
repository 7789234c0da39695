"""The pool of pages held against Day 10's cache and HuggingFace's: Day 14."""

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from nanoserve.cache import KVCache
from nanoserve.checks.caching import by_largest, same
from nanoserve.checks.common import BF16, F32, agree, attempt, holds
from nanoserve.checks.model import VARIANTS, make, tokens
from nanoserve.checks.model_loading import load_saved
from nanoserve.checks.pool_places import check_places, made_row, slots
from nanoserve.checks.pool_reading import check_pass, poisoned, through
from nanoserve.comparison import Scoreboard
from nanoserve.engine.pool import KVPool, Span
from nanoserve.layers import causal_attention
from nanoserve.model import Llama
from nanoserve.reference import transformers

SIZES = (1, 2, 3, 16)
# Each step's texts in the order of the row, and how many of their tokens it reads.
STEPS = (
    {"a": 5, "b": 1},
    {"b": 3, "a": 1, "c": 4},
    {"c": 1, "a": 6, "b": 1},  # b ends here, and d gets its blocks
    {"d": 5, "c": 2, "a": 1},
    {"a": 1, "d": 1, "c": 1},
)
LENGTHS = {name: sum(step.get(name, 0) for step in STEPS) for name in "abcd"}


class Text:
    """A text that is read into a pool, and the blocks that it has there."""

    def __init__(self, ids: torch.Tensor, table: Sequence[int] = ()):
        self.ids, self.table, self.computed = ids, [*table], 0

    def new(self, n: int) -> torch.Tensor:
        """Its next n ids."""
        return self.ids[self.computed : self.computed + n]


@torch.inference_mode()
def read(model: Llama, pool: KVPool, texts: dict[str, Text], step: dict[str, int]) -> dict:
    """Scores (new, V) of each text after a step. Its new tokens' slots, and no others, change."""
    parts = [(texts[name], n) for name, n in step.items()]
    spans = [Span([*text.table], text.computed, n) for text, n in parts]
    what = f"a pass of {spans}, blocks of {pool.block_size}"
    row = torch.cat([text.new(n) for text, n in parts])[None]
    places = torch.cat([torch.arange(t.computed, t.computed + n) for t, n in parts])
    before = pool.k.clone(), pool.v.clone()
    attends = attempt("attends", pool.attends, spans)
    agree("tables after attends", [s.table for s in spans], [t.table for t, _ in parts])
    x, mixes = through(what, model, row, places, attends)
    check_pass(what, pool, before, spans, mixes)
    for text, n in parts:
        text.computed += n
    return dict(zip(step, model.logits(x[0]).split([*step.values()]), strict=True))


def held_by(pool: KVPool, text: Text) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of a text, each (layers, K, T, D), as its table has them."""
    at = slots(Span(text.table, 0, text.computed), pool.block_size)
    return pool.k[:, at].transpose(1, 2), pool.v[:, at].transpose(1, 2)


def bits_are_kept(model: Llama, T: int, n: int) -> bool:
    """Whether attention on this processor has the same bits for keys that lie apart."""
    q, k, v = made_row(model.config, T, F32)
    k_apart, v_apart = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v))
    mine = causal_attention(q[:, :, -n:], k_apart, v_apart)
    return torch.equal(mine, causal_attention(q[:, :, -n:], k, v))


@torch.inference_mode()
def check_alone(model: Llama, size: int, T: int, n: int) -> None:
    """A text alone, n tokens at a time, in shuffled blocks: the bits of the contiguous cache."""
    ids, count = tokens(1, T)[0], -(-T // size)
    table = random.Random(T).sample(range(count + 3), count + 1)  # one block too many
    text = Text(ids, table)
    pool, cache = poisoned(model, count + 3, size), KVCache(model.config, 1, T)
    bits = bits_are_kept(model, T, min(n, T))
    while text.computed < T:
        start = text.computed
        mine = read(model, pool, {"a": text}, {"a": min(n, T - start)})["a"]
        part = ids[None, start : text.computed]
        x = model(part, torch.arange(start, text.computed), cache.attends())
        cache.advance(part.shape[1])
        what = f"tokens {start} to {text.computed - 1} of {T}, blocks of {size}"
        wanted = model.logits(x)[0]
        held = (held_by(pool, text), (cache.k[:, 0, :, : cache.length], cache.v[:, 0]))
        for name, got, right in (
            ("scores", mine, wanted),
            ("keys", held[0][0], held[1][0]),
            ("values", held[0][1], held[1][1][:, :, : cache.length]),
        ):
            equal = torch.equal(got, right) if bits else same(got, right)
            holds(f"{name} of {what}, must be the contiguous cache's", equal)


@torch.inference_mode()
def company(model: Llama, size: int, ids: dict[str, torch.Tensor], poison: bool) -> dict:
    """Scores (T, V) of four texts that come, go, and take each other's blocks."""
    free = [*range(sum(-(-len(x) // size) for x in ids.values()))]
    random.Random(size).shuffle(free)
    pool, texts = poisoned(model, len(free), size), {n: Text(x) for n, x in ids.items()}
    scores = {name: [] for name in ids}
    for step in STEPS:
        for name, n in step.items():
            while len(texts[name].table) * size < texts[name].computed + n:
                texts[name].table.append(free.pop(0))
        for name, part in read(model, pool, texts, step).items():
            scores[name].append(part)
        for name in step:
            if texts[name].computed == len(ids[name]):
                free[:0] = texts[name].table  # the next one gets them
                for block in texts[name].table if poison else ():
                    pool.k[:, block * size : (block + 1) * size] = torch.nan
                    pool.v[:, block * size : (block + 1) * size] = torch.nan
    return {name: torch.cat(parts) for name, parts in scores.items()}


@torch.inference_mode()
def check_company(board: Scoreboard, path, theirs: nn.Module, model: Llama, ids, size=4) -> None:
    """Texts in one row, each against HuggingFace alone, in blocks that others have left.

    Those are poisoned first where the block size is odd, and else as they were left.
    """
    long = ids.flatten().repeat(sum(LENGTHS.values()))
    starts = dict(zip("abcd", (0, 3, 7, 2), strict=True))
    texts = {name: long[at : at + LENGTHS[name]] for name, at in starts.items()}
    wanted = {name: theirs(x[None], use_cache=False).logits[0] for name, x in texts.items()}
    largest = max(x.abs().max() for x in wanted.values())
    for name, mine in company(model, size, texts, poison=size % 2 == 1).items():
        what = f"text {name} in company, blocks of {size}"
        by_largest(board, path, "scores in company", what, mine, wanted[name], largest)


@torch.inference_mode()
def check_pool(board: Scoreboard, path, theirs: nn.Module, model: Llama, ids, sizes=SIZES) -> None:
    """Keys, values and scores of ids (1, T), whole and in chunks, in blocks in any order."""
    T = ids.shape[1]
    wanted = theirs(ids, use_cache=False).logits[0]
    dynamic = transformers.DynamicCache(config=theirs.config)
    theirs(ids, past_key_values=dynamic, use_cache=True)
    for size, n in ((size, n) for size in sizes for n in (T, 7)):
        count = -(-T // size)
        text = Text(ids[0], random.Random(n).sample(range(count + 2), count))
        pool, scores = poisoned(model, count + 2, size), []
        while text.computed < T:
            scores.append(read(model, pool, {"a": text}, {"a": min(n, T - text.computed)})["a"])
        name = f"{T} tokens, {n} at a time, blocks of {size}"
        top = wanted.abs().max()
        by_largest(board, path, "scores", name, torch.cat(scores), wanted, top)
        for what, held in zip(("keys", "values"), held_by(pool, text), strict=True):
            right = torch.cat([getattr(layer, what) for layer in dynamic.layers])
            full, top = f"{what}, {name}", right.abs().max()
            by_largest(board, path, what, full, held, right, top)


def check_pools(board: Scoreboard) -> None:
    """On made models: block sizes, lengths around their ends, company, places, refusals."""
    for variant in VARIANTS:
        theirs = make(variant | {"max_position_embeddings": 64}).eval()
        model = load_saved(theirs)
        check_places(model.config, F32)  # one layer's attend by itself tells most
        check_places(replace(model.config, num_hidden_layers=1), BF16)
        for size in SIZES:
            for T in (2 * size - 1, 2 * size, 2 * size + 1):
                check_alone(model, size, T, T)
                check_alone(model, size, T, 5)
            check_alone(model, size, 2 * size + 1, 1)
            check_company(board, None, theirs, model, tokens(1, 37), size)
        check_pool(board, None, theirs, model, tokens(1, 33))
