"""Where the KV cache puts keys and values, and what it refuses: Day 10."""

from typing import Any

import torch

from nanoserve.cache import KVCache
from nanoserve.checks.common import F32, F64, agree, alike, attempt, holds, must_raise, tells
from nanoserve.config import ModelConfig
from nanoserve.layers import causal_attention


def made(config: ModelConfig, B: int, T: int, dtype: torch.dtype, seed: int = 0) -> list:
    """Seeded q (B, H, T, D), k and v (B, K, T, D)."""
    seeded = torch.Generator().manual_seed(seed)
    heads = (config.num_attention_heads, *[config.num_key_value_heads] * 2)
    shapes = [(B, n, T, config.head_dim) for n in heads]
    return [torch.randn(shape, generator=seeded).to(dtype) for shape in shapes]


def check_places(config: ModelConfig, dtype: torch.dtype) -> None:
    """Sizes, places, what stays outside of gradients and modes, and what is refused."""
    check_sizes(config, dtype)
    check_layers(config, dtype)
    check_modes(config, dtype)
    check_refused(config, dtype)


def check_sizes(config: ModelConfig, dtype: torch.dtype) -> None:
    """Bytes as the formula has them; dtype and device as asked; by default float32 on the CPU."""
    L, K, D = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
    for B, room in ((1, 1), (3, 7)):
        cache = attempt("KVCache", KVCache, config, B, room, dtype, "cpu")
        agree("length of a new cache", cache.length, 0)
        for name, held in (("k", cache.k), ("v", cache.v)):
            what = f"{name} of a cache for {B} texts of {room} tokens"
            agree(f"{what}, shape", tuple(held.shape), (L, B, K, room, D))
            agree(f"{what}, dtype", held.dtype, dtype)
        wanted = 2 * L * B * K * room * D * dtype.itemsize
        agree(f"nbytes for {B} texts of {room} tokens in {dtype}", cache.nbytes, wanted)
    plain = attempt("KVCache", KVCache, config, batch=2, max_len=5)
    agree("dtype where none is asked for", (plain.k.dtype, plain.v.dtype), (F32, F32))
    there = attempt("KVCache", KVCache, config, 1, 5, device="meta")
    agree("device of k and v", {there.k.device.type, there.v.device.type}, {"meta"})


def check_layers(config: ModelConfig, dtype: torch.dtype) -> None:
    """Each layer writes its own places, and attends to what it has, in any order of layers."""
    L, B, sizes = config.num_hidden_layers, 2, (4, 1, 3, 1)
    cache = attempt("KVCache", KVCache, config, B, sum(sizes), dtype)
    cache.k.fill_(torch.nan), cache.v.fill_(torch.nan)
    past = [([], []) for _ in range(L)]
    for turn, T in enumerate(sizes):
        attends = attempt("attends", cache.attends)
        agree("attends", len(attends), L)
        for i in reversed(range(L)):
            q, k, v = made(config, B, T, dtype, seed=10 * turn + i)
            mine = attempt(f"attend of layer {i}", attends[i], q, k, v)
            past[i][0].append(k), past[i][1].append(v)
            keys, values = (torch.cat(parts, 2) for parts in past[i])
            wanted = causal_attention(q, keys, values)
            torch.testing.assert_close(
                mine,
                wanted,
                msg=lambda m, i=i, T=T: f"the mix of layer {i}, {T} new tokens, differs. {m}",
            )
            agree("length before advance", cache.length, sum(sizes[:turn]))
            end = cache.length + T
            for name, held, right in (("k", cache.k, keys), ("v", cache.v, values)):
                what = f"{name} of layer {i} must be what was handed over, to the bit"
                holds(what, alike(held[i, :, :, :end], right))
                free = held[i, :, :, end:]
                holds(
                    f"{name} of layer {i} must not be written past {end}", bool(free.isnan().all())
                )
        attempt(f"advance({T})", cache.advance, T)


def check_modes(config: ModelConfig, dtype: torch.dtype) -> None:
    """No gradient is kept, and a cache made in inference mode can be written to outside of it."""
    with torch.inference_mode():
        inside = attempt("KVCache", KVCache, config, 1, 4, dtype)
    outside = attempt("KVCache", KVCache, config, 1, 4, dtype)
    for cache in (inside, outside):
        for mode in (torch.enable_grad(), torch.no_grad(), torch.inference_mode()):
            with mode:
                qkv = made(config, 1, 2, dtype)
                if torch.is_grad_enabled():
                    qkv = [x.requires_grad_() for x in qkv]
                cache.truncate(0)
                for attend in attempt("attends", cache.attends):
                    attempt("attend in another mode", attend, *qkv)
                cache.advance(2)
        kept = cache.k.requires_grad or cache.v.requires_grad
        holds("the cache must keep no graph for a gradient", not kept, "k and v came undetached")


def check_refused(config: ModelConfig, dtype: torch.dtype) -> None:
    """What does not fit is refused before anything is written, with its numbers."""
    cache = attempt("KVCache", KVCache, config, 2, 6, dtype)
    cache.k.fill_(torch.nan), cache.v.fill_(torch.nan)
    attend, other = cache.attends()[0], F64 if dtype == F32 else F32

    def fill(T: int) -> None:
        for one in cache.attends():
            attempt(f"{T} tokens", one, *made(config, 2, T, dtype))
        attempt(f"advance({T})", cache.advance, T)

    fill(4)
    before = cache.k.clone(), cache.v.clone()
    q, k, v = made(config, 2, 1, dtype)
    wide = [torch.cat([x, x], 1) for x in (q, k, v)]

    def refuse(what: str, words: list, act: Any, *given: Any) -> None:
        said = must_raise(ValueError, what, act, *given)
        tells(what, said, words)
        agree(f"length after {what}", cache.length, 4)
        holds(f"{what} must write nothing", alike(cache.k, before[0]) and alike(cache.v, before[1]))

    refuse("three tokens where two fit", [3], attend, *made(config, 2, 3, dtype))
    refuse("one text in a cache for two", [], attend, *made(config, 1, 1, dtype))
    refuse("four texts in a cache for two", [], attend, *made(config, 4, 1, dtype))
    refuse("twice the KV heads", [], attend, *wide)
    refuse("one KV head too few, or half a head", [], attend, q, k[..., :-1], v[..., :-1])
    refuse("another dtype", [other, dtype], attend, *made(config, 2, 1, other))
    refuse("values of another dtype", [other], attend, q, k, v.to(other))
    refuse("more keys than values", [], attend, q, torch.cat([k, k], 2), v)
    refuse("an advance past the room", [3], cache.advance, 3)
    refuse("an advance by less than nothing", [-1], cache.advance, -1)
    refuse("a cut behind the end", [5], cache.truncate, 5)
    refuse("a cut before the start", [-1], cache.truncate, -1)
    fill(2)
    agree("length of a full cache", cache.length, 6)
    must_raise(ValueError, "a token for a full cache", attend, q, k, v)
    for n in (6, 3, 3, 0):
        attempt(f"truncate({n})", cache.truncate, n)
        agree(f"length after truncate({n})", cache.length, n)
    attempt("advance(0)", cache.advance, 0)
    for batch, room in ((0, 4), (1, 0), (-1, 4), (1, -1)):
        must_raise(ValueError, f"batch {batch}, max_len {room}", KVCache, config, batch, room)
