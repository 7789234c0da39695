"""What `pack` and `batch_logits` promise, and what they refuse: Day 13."""

from typing import Any

import torch

from nanoserve.batch import Packed, Part, batch_logits, cut, pack
from nanoserve.checks.caching import poisoned, same
from nanoserve.checks.common import agree, attempt, holds, must_raise
from nanoserve.checks.model import tokens
from nanoserve.layers import causal_attention
from nanoserve.model import Llama

READS = (([7, 1, 5], 0), ([9], 40), ([2, 2], 3))  # ids, and the place of the first


def check_packing() -> None:
    """The row that `pack` makes and how it is cut: no model is run."""
    check_row()
    check_cut()


def check_parts(model: Llama, half: Llama) -> None:
    """All else on one made model, and on the same in bf16."""
    check_padding(model)
    check_half(half)
    check_failed(model)
    check_refused(model)


def parts(layers: int = 2, act: Any = causal_attention) -> list[Part]:
    """Three parts, of a prefill, a decode and a chunk."""
    return [Part(ids, start, [act] * layers) for ids, start in READS]


def check_row() -> None:
    """ids, positions, spans and last tokens, padded or not; on the device that is asked for."""
    for multiple, pad in ((1, 0), (2, 0), (3, 0), (4, 2), (7, 1)):
        what = f"pack with multiple {multiple}"
        packed: Packed = attempt(what, pack, parts(), multiple=multiple)
        agree(f"{what}: shape of ids", [*packed.ids.shape], [1, 6 + pad])
        agree(f"{what}: ids", packed.ids[0, :6].tolist(), [7, 1, 5, 9, 2, 2])
        agree(f"{what}: shape of positions", [*packed.positions.shape], [1, 6 + pad])
        agree(f"{what}: positions", packed.positions[0, :6].tolist(), [0, 1, 2, 40, 3, 4])
        agree(f"{what}: spans", [*map(tuple, packed.spans)], [(0, 3), (3, 4), (4, 6)])
        agree(f"{what}: last", packed.last.tolist(), [2, 3, 5])
        agree(f"{what}: attends", len(packed.attends), 2)
        kinds = {x.dtype for x in (packed.ids, packed.positions, packed.last)}
        agree(f"{what}: dtypes", kinds, {torch.int64})
    packed = attempt("pack for another device", pack, parts(), "meta")
    kinds = {x.device.type for x in (packed.ids, packed.positions, packed.last)}
    agree("devices of ids, positions, last", kinds, {"meta"})
    agree("spans of one part", [*map(tuple, pack(parts()[:1]).spans)], [(0, 3)])


def check_cut() -> None:
    """Each layer's own `attend` gets its tokens alone, and its mix goes back to their place."""
    seen = []

    def own(i: int, layer: int) -> Any:
        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            seen.append((i, layer, *(x[0, 0, :, 0].tolist() for x in (q, k, v))))
            return q + 100 * i + 1000 * layer

        return attend

    row = [Part(ids, at, [own(i, 0), own(i, 1)]) for i, (ids, at) in enumerate(READS)]
    for multiple in (1, 4):
        packed = pack(row, multiple=multiple)
        T = packed.ids.shape[1]
        q = torch.arange(T).float()[None, None, :, None].expand(1, 4, T, 6)
        k, v = q[:, :2] + 20, q[:, :2] + 40
        for layer, attend in enumerate(packed.attends):
            seen.clear()
            mix = attempt(f"the attend of layer {layer}", attend, q, k, v)
            wanted = [
                (i, layer, *([float(t + plus) for t in range(*span)] for plus in (0, 20, 40)))
                for i, span in enumerate(((0, 3), (3, 4), (4, 6)))
            ]
            agree("part, layer, and the tokens of q, k and v that it got", seen, wanted)
            agree("shape of the mix", [*mix.shape], [*q.shape])
            right = q[0, 0, :6, 0] + torch.tensor([0, 0, 0, 100, 200, 200]) + 1000 * layer
            agree("the mix of each token", mix[0, 3, :6, 5].tolist(), right.tolist())
            holds("the mix of what pads must be finite", bool(mix.isfinite().all()))
    wide = attempt("cut", cut, [2, 1], [causal_attention] * 2)
    q, k, v = (torch.randn(1, heads, 3, d) for heads, d in ((4, 6), (2, 6), (2, 9)))
    agree("shape of a mix of wider values", [*wide(q, k, v).shape], [1, 4, 3, 9])


@torch.inference_mode()
def check_padding(model: Llama) -> None:
    """Whatever stands in the rows that pad, nobody's scores move: here it is NaN."""
    texts = [row[:n].tolist() for row, n in zip(tokens(3, 9), (9, 1, 4), strict=True)]

    def scores(poison: bool) -> torch.Tensor:
        caches = [poisoned(model, 1, 9) for _ in texts]
        row = [Part(t, 0, c.attends()) for t, c in zip(texts, caches, strict=True)]
        packed = pack(row, multiple=16)

        def spoilt(attend: Any) -> Any:
            def act(*qkv: torch.Tensor) -> torch.Tensor:
                mix = attend(*qkv).clone()
                mix[:, :, 14:] = torch.nan
                return mix

            return act

        attends = [*map(spoilt, packed.attends)] if poison else packed.attends
        x = model(packed.ids, packed.positions, attends)
        if not poison:
            holds("the rows that pad must stay finite", bool(x.isfinite().all()))
        return model.logits(x[0, packed.last])

    wanted = scores(False)
    agree("scores beside NaN in the rows that pad", torch.equal(scores(True), wanted), True)


@torch.inference_mode()
def check_half(half: Llama) -> None:
    """In bf16 the scores are in bf16, and near those of each alone."""
    texts = [row[:n].tolist() for row, n in zip(tokens(3, 9), (9, 1, 4), strict=True)]
    caches = [poisoned(half, 1, 10) for _ in texts]
    mine = attempt("batch_logits in bf16", batch_logits, half, caches, texts, 4)
    agree("dtype of the scores of a bf16 model", mine.dtype, torch.bfloat16)
    for i, text in enumerate(texts):
        alone = half.logits(half(torch.tensor([text]))[0, -1])
        off = (mine[i] - alone).abs().max().item() / alone.abs().max().item()
        holds("in bf16 a text in company must be near itself alone", off < 0.1, f"off by {off}")


@torch.inference_mode()
def check_failed(model: Llama) -> None:
    """A pass that one request's cache is too small for counts for none of them."""
    text = tokens(1, 6)[0].tolist()
    big, small = poisoned(model, 1, 9), poisoned(model, 1, 2)
    must_raise(
        ValueError, "six tokens, room for two", batch_logits, model, [big, small], [text] * 2
    )
    agree("lengths after a pass that failed", (big.length, small.length), (0, 0))
    mine = batch_logits(model, [big], [text])
    alone = model.logits(model(torch.tensor([text]))[:, -1])
    holds("after a pass that failed, the next must be as in a new cache", same(mine, alone))
    model.requires_grad_(True)
    with torch.inference_mode(False), torch.enable_grad():
        scores = batch_logits(model, [poisoned(model, 1, 6)], [text])
    model.requires_grad_(False)
    holds("no step may be kept for a gradient", not scores.requires_grad)


def check_refused(model: Llama) -> None:
    """What cannot be packed, before anything is run; the message says where."""
    good, one = parts(), poisoned(model, 1, 9)
    for what, act, given, words in (
        ("no part", pack, ([],), ["part"]),
        ("a part without ids", pack, ([good[0], Part([], 4, good[0].attends)],), ["1", "ids"]),
        ("a negative place", pack, ([good[0], Part([1], -1, good[0].attends)],), ["1", "-1"]),
        ("other layers", pack, ([good[0], *parts(3)[1:]],), ["1", "3", "2"]),
        ("multiple 0", pack, (good, "cpu", 0), ["multiple", "0"]),
        ("no request", batch_logits, (model, [], []), []),
        ("a cache too few", batch_logits, (model, [one], [[1], [2]]), ["2", "cache"]),
        ("one cache twice", batch_logits, (model, [one, one], [[1], [2]]), ["2", "cache"]),
    ):
        said = must_raise(ValueError, what, act, *given)
        agree(f"{what}: untold in {said!r}", [word for word in words if word not in said], [])
    agree("length of a cache after what was refused", one.length, 0)
    agree("places written by what was refused", bool(one.k.isnan().all()), True)
