"""Where the pool puts keys and values, what each span sees, and what is refused: Day 14."""

from dataclasses import replace
from typing import Any

import torch

from nanoserve.checks.cache_places import made
from nanoserve.checks.common import F32, F64, agree, alike, attempt, holds, must_raise, tells
from nanoserve.config import ModelConfig
from nanoserve.engine.pool import KVPool, Span
from nanoserve.layers import causal_attention


def shared(size: int) -> list[Span]:
    """Three texts; the first block of two of them is one, and both only read it."""
    return [Span([6, 0, 3], size + 2, 2), Span([6, 4], size, 1), Span([2, 1, 5], 0, 7)]


def made_row(config: ModelConfig, T: int, dtype: torch.dtype, seed: int = 0) -> list:
    """Seeded q (1, H, T, D), k and v (1, K, T, D), as a model hands them over."""
    return made(config, 1, T, dtype, seed)


def slots(span: Span, block_size: int) -> list[int]:
    """The slots of all tokens up to the span's last new one."""
    places = range(span.computed + span.new)
    return [span.table[p // block_size] * block_size + p % block_size for p in places]


def check_places(config: ModelConfig, dtype: torch.dtype) -> None:
    """Sizes, what each span sees, gradients and modes, and what is refused."""
    check_sizes(config, dtype)
    for block_size in (3, 4):
        check_spans_see(config, dtype, block_size)
    check_far(config, dtype)
    check_modes(config, dtype)
    check_refused(config, dtype)


def check_sizes(config: ModelConfig, dtype: torch.dtype) -> None:
    """Bytes as the formula has them; dtype and device as asked; the defaults."""
    L, K, D = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
    for count, size in ((1, 1), (5, 3), (2, 16)):
        pool = attempt("KVPool", KVPool, config, count, size, dtype, "cpu")
        what = f"of a pool of {count} blocks of {size}"
        for name, held in (("k", pool.k), ("v", pool.v)):
            agree(f"{name} {what}, shape", tuple(held.shape), (L, count * size, K, D))
            agree(f"{name} {what}, dtype", held.dtype, dtype)
        agree(f"nbytes {what}", pool.nbytes, 2 * L * count * size * K * D * dtype.itemsize)
        agree(f"blocks and size {what}", (pool.num_blocks, pool.block_size), (count, size))
    plain = attempt("KVPool", KVPool, config, num_blocks=2)
    agree("block size where none is asked for", plain.block_size, 16)
    agree("dtype where none is asked for", (plain.k.dtype, plain.v.dtype), (F32, F32))
    there = attempt("KVPool", KVPool, config, 2, 4, device="meta")
    agree("device of k and v", {there.k.device.type, there.v.device.type}, {"meta"})


def filled(config: ModelConfig, dtype: torch.dtype, block_size: int) -> tuple[KVPool, list]:
    """A pool of 7 blocks in which the spans' computed tokens lie, else NaN; and those tokens."""
    pool = attempt("KVPool", KVPool, config, 7, block_size, dtype)
    pool.k.fill_(torch.nan), pool.v.fill_(torch.nan)
    past = []
    for span in shared(block_size):
        at = slots(span, block_size)[: span.computed]
        own = []
        for i in range(len(pool.k)):
            _, k, v = made_row(config, 9, dtype, seed=100 + i)
            k, v = k[:, :, : span.computed], v[:, :, : span.computed]  # alike where shared
            pool.k[i, at], pool.v[i, at] = k[0].transpose(0, 1), v[0].transpose(0, 1)
            own.append((k, v))
        past.append(own)
    return pool, past


def check_spans_see(config: ModelConfig, dtype: torch.dtype, block_size: int) -> None:
    """Each span sees its own text; layers in any order; and the caller may change its tables."""
    spans = shared(block_size)
    sizes, T = [s.new for s in spans], sum(s.new for s in spans)
    written = [i for s in spans for i in slots(s, block_size)[s.computed :]]
    pool, past = filled(config, dtype, block_size)
    attends = attempt("attends", pool.attends, spans)
    agree("attends", len(attends), len(pool.k))
    for span in spans:
        span.table.clear()
    for i in reversed(range(len(pool.k))):
        q, k, v = made_row(config, T, dtype, seed=i)
        others = [j for j in range(len(pool.k)) if j != i]
        before = pool.k[others], pool.v[others]
        mine = attempt(f"attend of layer {i}", attends[i], q, k, v)
        for name, held, new in (("k", pool.k, k), ("v", pool.v, v)):
            must = f"attend of layer {i} must put {name} (1, K, T, D) into pool.{name}[{i}]"
            where = f"{name}[0, :, t] belongs in slot number t of {written}"
            holds(must, alike(held[i, written], new[0].transpose(0, 1)), where)
        whole = not mine.isnan().any().item()
        nan = "NaN comes out, and NaN lies in the slots that nobody has written"
        holds(f"attend of layer {i} must read slots that are written, and no others", whole, nan)
        wanted = []
        for own, *new in zip(past, *(x.split(sizes, 2) for x in (q, k, v)), strict=True):
            keys, values = (torch.cat(pair, 2) for pair in zip(own[i], new[1:], strict=True))
            wanted.append(causal_attention(new[0], keys, values))
        for n, (got, right) in enumerate(zip(mine.split(sizes, 2), wanted, strict=True)):
            what = f"the mix of span {n}, layer {i}, blocks of {block_size}, differs"
            torch.testing.assert_close(got, right, msg=lambda m, what=what: f"{what}. {m}")
        now = pool.k[others], pool.v[others]
        must = f"attend of layer {i} must leave the other layers alone"
        holds(must, all(map(alike, now, before)))


def check_far(config: ModelConfig, dtype: torch.dtype) -> None:
    """A text of 600 tokens in a pool of 33,600 slots, some of them past 8 and 16 bits."""
    pool = attempt("KVPool", KVPool, replace(config, num_hidden_layers=1), 2100, 16, dtype)
    pool.k.fill_(torch.nan), pool.v.fill_(torch.nan)
    span = Span((2099, 300, 130, *range(1000, 1035)), 0, 600)
    q, k, v = made_row(config, 600, dtype)
    mine = attempt("attend in a large pool", pool.attends([span])[0], q, k, v)
    at = slots(span, 16)
    agree("slots written in a large pool", int((~pool.k[0, :, 0, 0].isnan()).sum()), 600)
    holds(
        "a token's slot must be right in a large pool", alike(pool.k[0, at], k[0].transpose(0, 1))
    )
    last = [x[:, :, -3:] for x in (q, k, v)]
    again = attempt("attend", pool.attends([replace(span, computed=597, new=3)])[0], *last)
    wanted = causal_attention(q, k, v)
    for what, got in (("", mine), (", its last three tokens", again)):
        differs = f"the mix of a text of 600 tokens{what}, differs"
        right = wanted[:, :, -got.shape[2] :]
        torch.testing.assert_close(got, right, msg=lambda m, what=differs: f"{what}. {m}")


def check_modes(config: ModelConfig, dtype: torch.dtype) -> None:
    """No gradient is kept, and a pool made in inference mode can be written to outside of it."""
    with torch.inference_mode():
        inside = attempt("KVPool", KVPool, config, 2, 2, dtype)
    outside = attempt("KVPool", KVPool, config, 2, 2, dtype)
    for pool in (inside, outside):
        for mode in (torch.enable_grad(), torch.no_grad(), torch.inference_mode()):
            with mode:
                qkv = made_row(config, 3, dtype)
                if torch.is_grad_enabled():
                    qkv = [x.requires_grad_() for x in qkv]
                for attend in attempt("attends", pool.attends, [Span((1, 0), 0, 3)]):
                    attempt("attend in another mode", attend, *qkv)
        kept = pool.k.requires_grad or pool.v.requires_grad
        holds("the pool must keep no graph for a gradient", not kept)


def check_refused(config: ModelConfig, dtype: torch.dtype) -> None:
    """What does not fit is refused before anything is written, with its numbers."""
    pool, _ = filled(config, dtype, 3)
    before = pool.k.clone(), pool.v.clone()
    attend, other = pool.attends(shared(3))[0], F64 if dtype == F32 else F32

    def refuse(what: str, words: list, act: Any, *given: Any) -> None:
        said = must_raise(ValueError, what, act, *given)
        tells(what, said, words)
        holds(f"{what} must write nothing", alike(pool.k, before[0]) and alike(pool.v, before[1]))

    def spans(what: str, words: list, *given: Span) -> None:
        refuse(what, words, pool.attends, [*given])

    good = Span((1, 2), 3, 1)
    spans("no spans", ["spans"])
    spans("a table without blocks", [1, 0], Span((), 0, 1))
    spans("seven tokens in two blocks of 3", [7, 6], Span((1, 2), 0, 7))
    spans("the seventh token in two blocks of 3", [7, 6], Span((1, 2), 6, 1))
    spans("a second span that does not fit", ["span 1", 4, 3], good, Span((3,), 3, 1))
    spans("fewer than no tokens in the pool", [-1], Span((1, 2), -1, 2))
    spans("no new token", [], Span((1, 2), 3, 0))
    spans("a block too far", [7], Span((1, 7), 3, 1))
    spans("block -1", [-1], good, Span((3, -1), 0, 2))
    spans("a block that is not needed, and not there", [9], Span((1, 2, 9), 3, 1))
    spans("two spans that write one slot", [], good, good)
    spans("one block twice in a table", [], Span((1, 1), 0, 6))
    T = sum(s.new for s in shared(3))
    q, k, v = made_row(config, T, dtype)
    refuse("a row one too long", [T + 1, T], attend, *made_row(config, T + 1, dtype))
    refuse("a row one too short", [T - 1, T], attend, *made_row(config, T - 1, dtype))
    refuse("one token for all", [], attend, *made_row(config, 1, dtype))
    refuse("two rows", [], attend, *made(config, 2, T, dtype))
    refuse("twice the KV heads", [], attend, q, *(torch.cat([x, x], 1) for x in (k, v)))
    refuse("half a head", [], attend, q, k[..., :-1], v[..., :-1])
    refuse("another dtype", [other, dtype], attend, *made_row(config, T, other))
    refuse("values of another dtype", [other], attend, q, k, v.to(other))
    refuse("more keys than values", [], attend, q, k, v[:, :, 1:])
    for count, size in ((0, 4), (4, 0), (-1, 4)):
        refuse(f"{count} blocks of {size}", [count, size], KVPool, config, count, size)
