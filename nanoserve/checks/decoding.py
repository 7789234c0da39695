"""Single tokens that attend together, beside Day 14's pool, which lets them in turn: Day 16."""

import torch

from nanoserve.checks.common import BF16, F32, agree, alike, attempt, holds, must_raise
from nanoserve.checks.model import VARIANTS, make
from nanoserve.checks.pool_places import made_row, shared, slots
from nanoserve.config import ModelConfig
from nanoserve.engine.decode import BatchedPool
from nanoserve.engine.pool import KVPool, Span

# The tokens of each text in the pool, and the new ones: (computed, new).
ROWS = {
    "single tokens": [(4, 1), (0, 1), (11, 1), (5, 1), (6, 1)],
    "one token": [(6, 1)],
    "a first token": [(0, 1)],
    "chunks": [(3, 5), (0, 2)],
    "one chunk": [(0, 7)],
    "tokens around chunks": [(9, 1), (2, 3), (1, 1), (0, 6), (12, 1)],
    "chunks around a token": [(0, 3), (7, 1), (4, 2)],
}


def spans_of(texts: list[tuple[int, int]], block_size: int) -> tuple[list[Span], int]:
    """Spans whose blocks lie apart, in no order, and how many blocks that takes."""
    sizes = [-(-(computed + new) // block_size) for computed, new in texts]
    free = torch.randperm(sum(sizes) + 2, generator=torch.Generator().manual_seed(1)).tolist()
    tables = [[free.pop() for _ in range(size)] for size in sizes]
    pairs = zip(tables, texts, strict=True)
    return [Span(table, *text) for table, text in pairs], sum(sizes) + 2


def twins(config: ModelConfig, spans: list[Span], count: int, size: int, dtype: torch.dtype):
    """Both pools, alike: seeded where the spans have tokens, else NaN."""
    plain = KVPool(config, count, size, dtype)
    seeded = torch.Generator().manual_seed(2)
    for held in (plain.k, plain.v):
        held.copy_(torch.randn(held.shape, generator=seeded))
        own = [at for span in spans for at in slots(span, size)[: span.computed]]
        gone = torch.ones(held.shape[1], dtype=torch.bool)
        gone[own] = False
        held[:, gone] = torch.nan
    ours = attempt("BatchedPool", BatchedPool, config, count, size, dtype)
    ours.k.copy_(plain.k), ours.v.copy_(plain.v)
    return plain, ours


def check_row(what: str, config: ModelConfig, spans, count: int, size: int, dtype) -> None:
    """One row by both pools: the mix within rounding, what is written to the bit."""
    plain, ours = twins(config, spans, count, size, dtype)
    theirs = plain.attends(spans)
    mine = attempt(f"attends, {what}", ours.attends, spans)
    agree(f"attends, {what}", len(mine), len(theirs))
    for span in spans:
        span.table.clear()  # the caller's own, which may go on
    for layer in reversed(range(len(mine))):
        qkv = made_row(config, sum(s.new for s in spans), dtype, seed=layer)
        wanted = theirs[layer](*qkv)
        got = attempt(f"attend of layer {layer}, {what}", mine[layer], *qkv)
        said = f"{what}, blocks of {size}, layer {layer}: the mix differs"
        torch.testing.assert_close(got, wanted, msg=lambda m, said=said: f"{said}. {m}")
    for name, held, right in (("k", ours.k, plain.k), ("v", ours.v, plain.v)):
        holds(f"{name}, {what}: what is written must be Day 14's", alike(held, right))


def check_decoding() -> None:
    """Rows of every kind, in blocks of 1, 3 and 16; a shared block; modes; what is refused."""
    for variant in VARIANTS:
        config = ModelConfig.from_dict(make(variant).config.to_dict())
        for size in (1, 3, 16):
            for what, texts in ROWS.items():
                spans, count = spans_of(texts, size)
                check_row(what, config, spans, count, size, F32)
        spans = [Span([6, 0, 3], 5, 1), Span([6, 4], 4, 1), Span([2, 1], 0, 5)]
        check_row("a block of two texts", config, spans, 7, 3, F32)
        spans, count = spans_of(ROWS["single tokens"], 4)
        check_row("in bf16", config, spans, count, 4, BF16)
    check_refused(config)


def check_refused(config: ModelConfig) -> None:
    """What Day 14's pool refuses, and that nothing is written; gradients are none."""
    spans, count = spans_of(ROWS["tokens around chunks"], 3)
    plain, ours = twins(config, spans, count, 3, F32)
    for T in (11, 13):
        row = made_row(config, T, F32)
        must_raise(ValueError, f"{T} tokens for 12", ours.attends(spans)[0], *row)
    for given in ([], [spans[0], spans[0]], [Span([count], 0, 1)], shared(1)[:1] * 2):
        must_raise(ValueError, f"spans {given}", ours.attends, given)
    holds("what is refused must write nothing", alike(ours.k, plain.k) and alike(ours.v, plain.v))
    with torch.enable_grad():
        row = [x.requires_grad_() for x in made_row(config, 12, F32)]
        attempt("attend with gradients", ours.attends(spans)[0], *row)
    holds("the pool must keep no graph for a gradient", not ours.k.requires_grad)
