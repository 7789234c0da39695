"""Several requests in one pass of the model.

Built in the book: day13. Edit there, then run book/tangle.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from nanoserve.cache import KVCache
from nanoserve.model import Llama

Attend = Callable[..., torch.Tensor]  # q, k, v of a layer -> their mix


@dataclass(frozen=True)
class Part:
    """What one request has to read in a step.

    `ids`, the place in its text of the first of them, and its own
    `attend` for each layer.
    """

    ids: Sequence[int]
    start: int
    attends: Sequence[Attend]


@dataclass(frozen=True)
class Packed:
    """Parts behind one another in a row of T tokens.

    ids and positions are (1, T), as `Llama` takes them, and `attends`
    has one a layer. Part i lies at spans[i], (begin, end), and its last
    token at last[i]. What pads the row is in no span.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    attends: list[Attend]
    spans: list[tuple[int, int]]
    last: torch.Tensor


def cut(sizes: Sequence[int], attends: Sequence[Attend]) -> Attend:
    """An `attend` of a row of parts: each part's tokens go to its own."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        cuts = [x.split(list(sizes), 2) for x in (q, k, v)]
        parts = zip(attends, *cuts, strict=True)
        return torch.cat([own(*qkv) for own, *qkv in parts], 2)

    return attend


def check_parts(parts: Sequence[Part], multiple: int) -> None:
    """ValueError unless these can be packed."""
    if not parts:
        raise ValueError("there is no part to pack")
    if multiple < 1:
        raise ValueError(f"multiple must be 1 or more: {multiple}")
    layers = len(parts[0].attends)
    for i, part in enumerate(parts):
        if not len(part.ids):
            raise ValueError(f"part {i} has no ids: leave it out")
        if part.start < 0:
            raise ValueError(f"part {i} starts at {part.start}, before 0")
        if len(part.attends) != layers:
            raise ValueError(
                f"part {i} has {len(part.attends)} attends, part 0 has "
                f"{layers}: all must be of one model"
            )


def padding(n: int, layers: int) -> Part:
    """n tokens that nobody asked for; their mix is zero."""
    return Part([0] * n, 0, [lambda q, k, v: torch.zeros_like(q)] * layers)


def pack(
    parts: Sequence[Part],
    device: str | torch.device = "cpu",
    multiple: int = 1,
) -> Packed:
    """Parts in one row, padded to a multiple of so many tokens.

    ValueError for no part, one without ids or from a negative place,
    and for parts of different numbers of layers.
    """
    check_parts(parts, multiple)
    extra = -sum(len(part.ids) for part in parts) % multiple
    row = [*parts, padding(extra, len(parts[0].attends))]
    sizes = [len(part.ids) for part in row]
    ends = accumulate(sizes)
    spans = [(end - n, end) for n, end in zip(sizes, ends, strict=True)]
    ids = [i for part in row for i in part.ids]
    places = [part.start + i for part in row for i in range(len(part.ids))]
    layers = zip(*(part.attends for part in row), strict=True)
    last = [end - 1 for _, end in spans[:-1]]
    return Packed(
        torch.tensor([ids], device=device),
        torch.tensor([places], device=device),
        [cut(sizes, attends) for attends in layers],
        spans[:-1],
        torch.tensor(last, device=device),
    )


@torch.inference_mode()
def batch_logits(
    model: Llama,
    caches: Sequence[KVCache],
    ids: Sequence[Sequence[int]],
    multiple: int = 1,
) -> torch.Tensor:
    """Read ids[i] behind what caches[i] holds; scores (N, V) of the next.

    One pass for all, over any mixture of lengths. The rows of the pass,
    and those of the head, are padded to a `multiple`. ValueError where
    caches and ids differ in number, or one cache stands there twice.
    """
    if not len(ids) == len(caches) == len({id(c) for c in caches}):
        raise ValueError(f"{len(ids)} requests need as many caches, each its own")
    parts = [
        Part(new, cache.length, cache.attends()) for new, cache in zip(ids, caches, strict=True)
    ]
    packed = pack(parts, model.embed.weight.device, multiple)
    x = model(packed.ids, packed.positions, packed.attends)  # (1, T, C)
    for cache, new in zip(caches, ids, strict=True):
        cache.advance(len(new))
    N = len(parts)
    again = packed.last[:1].expand(-N % multiple)  # rows to pad the head
    return model.logits(x[0, torch.cat([packed.last, again])])[:N]
