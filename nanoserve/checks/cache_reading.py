"""Passes of a model through a cache whose places hold NaN until they are written: Day 10."""

from collections.abc import Sequence

import torch

from nanoserve.cache import KVCache
from nanoserve.checks.common import agree, attempt
from nanoserve.model import Llama


def same(mine: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Whether scores are within 1e-5 of the largest."""
    return torch.allclose(mine, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def poisoned(model: Llama, B: int, room: int) -> KVCache:
    """A cache with NaN in every place: what is read before it is written shows."""
    weight = model.embed.weight
    cache = attempt("KVCache", KVCache, model.config, B, room, weight.dtype, weight.device)
    poison(cache, 0)
    return cache


def poison(cache: KVCache, start: int) -> None:
    """NaN in every place from `start` on."""
    for held in (cache.k, cache.v):
        held[:, :, :, start:] = torch.nan


@torch.inference_mode()
def read(model: Llama, cache: KVCache, ids: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """The scores (B, T, V) of ids (B, T), in passes of these sizes, behind what `cache` holds."""
    scores = []
    for part in ids.split(list(sizes), 1):
        start, T = cache.length, part.shape[1]
        what = f"a pass of {T} tokens behind {start}"
        places = torch.arange(start, start + T)
        x = attempt(what, model, part, places, attempt("attends", cache.attends))
        agree(f"length before advance, in {what}", cache.length, start)
        attempt(f"advance({T})", cache.advance, T)
        agree(f"length after {what}", cache.length, start + T)
        scores.append(model.logits(x))
    return torch.cat(scores, 1)
