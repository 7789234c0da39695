"""Passes of a model through a pool whose slots hold NaN until they are written: Day 14."""

from collections.abc import Callable, Sequence

import torch

from nanoserve.checks.common import alike, attempt, holds
from nanoserve.checks.pool_places import slots
from nanoserve.engine.pool import KVPool, Span
from nanoserve.model import Llama


def poisoned(model: Llama, num_blocks: int, block_size: int) -> KVPool:
    """A pool with NaN in every slot."""
    weight = model.embed.weight
    kind = weight.dtype, weight.device
    pool = attempt("KVPool", KVPool, model.config, num_blocks, block_size, *kind)
    pool.k.fill_(torch.nan), pool.v.fill_(torch.nan)
    return pool


def through(
    what: str, model: Llama, row: torch.Tensor, places: torch.Tensor, attends: Sequence
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What the model gives for a row, and the mix that each layer's attend gave."""
    layers, mixes = len(model.blocks), []
    right = isinstance(attends, Sequence) and len(attends) == layers
    gave = f"it gave {attends!r:.60}"
    holds(f"attends must give a list of {layers} functions, one for each layer", right, gave)

    def kept(attend: Callable) -> Callable:
        return lambda *qkv: mixes.append(attend(*qkv)) or mixes[-1]

    return attempt(what, model, row, places, [kept(attend) for attend in attends]), mixes


def check_pass(
    what: str,
    pool: KVPool,
    before: tuple[torch.Tensor, torch.Tensor],
    spans: Sequence[Span],
    mixes: Sequence[torch.Tensor],
) -> None:
    """The slots of new tokens, and no others, have changed, and no layer has seen NaN."""
    written = [i for s in spans for i in slots(s, pool.block_size)[s.computed :]]
    for name, held, old in (("k", pool.k, before[0]), ("v", pool.v, before[1])):
        others = [i for i in range(held.shape[1]) if i not in set(written)]
        holds(
            f"{name}: {what} must write its new tokens' slots alone",
            alike(held[:, others], old[:, others]),
        )
    # A layer's new keys are NaN too where the layer before has seen NaN: the first one tells.
    for i, mix in enumerate(mixes):
        for name, held in (("k", pool.k[i]), ("v", pool.v[i])):
            full = not held[written].isnan().any().item()
            holds(f"{name}: {what} must write the slots {written} of layer {i}", full)
        holds(
            f"{what} must read what it or a pass before has written, in layer {i} too",
            not mix.isnan().any().item(),
            "NaN comes out, and NaN lies in the slots that nobody has written",
        )
