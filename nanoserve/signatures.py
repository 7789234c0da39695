"""What a mismatch looks like, and the known mistakes that look like that."""

import re
from collections.abc import Callable, Mapping

import torch

# What a tensor may have been taken for, or what a known mistake gives: a phrase that ends the
# sentence "Mine equals ...", and the tensor, or a function that makes it if it is asked for.
Lookalikes = Mapping[str, torch.Tensor | Callable[[], torch.Tensor]]

# The residual stream, and what reads it: tensors that an in-place += changes.
STREAM = re.compile(r"embed|norm|blocks\.\d+(\.(attn|mlp)_norm)?")


def signature(
    mine: torch.Tensor,
    theirs: torch.Tensor,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    lookalikes: Lookalikes | None = None,
) -> list[str]:
    """Sentences on where (B, T, ...) or (B, H, T, ...) tensors part, and a likely cause.

    Where `mine` equals one of the `lookalikes`, that is the cause, and nothing is guessed.
    """
    if mine.shape != theirs.shape:
        lines = [f"Mine is {[*mine.shape]}, HuggingFace's {[*theirs.shape]}."]
        if sorted(mine.shape) == sorted(theirs.shape):
            lines.append("Looks like a transpose that is missing, or one too many.")
        return lines
    names = [str(t.dtype).removeprefix("torch.") for t in (mine, theirs)]
    lines = [] if names[0] == names[1] else ["Mine is in {}, HuggingFace's in {}.".format(*names)]
    if mine.is_meta or theirs.is_meta:
        return lines
    floats = {torch.float32, *(t.dtype for t in (mine, theirs) if t.is_floating_point())}
    step = max(torch.finfo(dtype).eps for dtype in floats)
    mine, theirs = mine.detach().double(), theirs.detach().double()
    wrong = ~torch.isclose(mine, theirs, rtol=rtol, atol=atol)
    if lines and (mine - theirs).abs().max() <= 2 * step * theirs.abs().max():
        return [*lines, "The values agree, as far as that can tell."]
    if not wrong.any():
        return lines
    first = tuple(wrong.nonzero()[0].tolist())
    lines += [
        f"First at {list(first)}: mine {mine[first].item():.8g}, "
        f"HuggingFace's {theirs[first].item():.8g}; "
        f"{wrong.sum().item()} of {wrong.numel()} values are off."
    ]
    lines += spread(wrong)
    if found := recognised(mine, theirs, lookalikes or {}):
        return [*lines, f"Mine equals {found}."]
    if (mine - theirs).abs().max() <= 8 * step * theirs.abs().max():
        return [*lines, "Looks like rounding: a cast, or a sum, in another place or order."]
    return lines + [f"Looks like {cause}." for cause in causes(mine, theirs, wrong, rtol, atol)]


def recognised(mine: torch.Tensor, theirs: torch.Tensor, lookalikes: Lookalikes) -> str | None:
    """The first of the lookalikes that `mine` is: at least 100 times as near as to `theirs`."""
    off = (mine - theirs).abs().max()
    for name, other in lookalikes.items():
        other = other() if callable(other) else other
        same = other.shape == mine.shape and not other.is_meta
        if same and 100 * (mine - other.detach().double()).abs().max() <= off:
            return name
    return None


def recorded(ref, name: str) -> dict[str, torch.Tensor]:
    """Lookalikes of what Reference `ref` calls `name`: all else that it has recorded."""
    order = {what: place for place, what in enumerate(ref.outputs)}
    here = order.get(name, len(order)) if STREAM.fullmatch(name) else len(order)
    found = {}
    if name in ref.inputs:
        found["its own input, as if nothing was done to it"] = ref.inputs[name]
    for phrase, tensors in (
        ("HuggingFace's {}", ref.outputs),
        ("what HuggingFace gives to {}", ref.inputs),
        ("HuggingFace's {}", getattr(ref, "parameters", {})),
    ):
        for what, tensor in tensors.items():
            later = STREAM.fullmatch(what) and order.get(what, 0) > here
            hint = ", which comes later: an in-place += on it does that" if later else ""
            if what != name:
                found[phrase.format(what) + hint] = tensor
    return found


def spread(wrong: torch.Tensor) -> list[str]:
    """Along which dimensions only some places are wrong."""
    lines = []
    for dim, size in enumerate(wrong.shape):
        others = [d for d in range(wrong.dim()) if d != dim]
        hit = wrong.any(dim=others) if others else wrong
        if not hit.all():
            places = hit.nonzero().flatten().tolist()
            shown = ", ".join(map(str, places[:6])) + (", ..." if len(places) > 6 else "")
            lines.append(f"Along dimension {dim}, {len(places)} of {size} places: {shown}.")
    return lines


def causes(
    mine: torch.Tensor, theirs: torch.Tensor, wrong: torch.Tensor, rtol: float, atol: float
) -> list[str]:
    """Known mistakes that leave such a difference."""
    found = []
    if not mine.isfinite().all():
        return ["a row without any allowed key, or an overflow: there are NaN or infinite values"]
    ratios = mine[theirs.abs() > 1e-3] / theirs[theirs.abs() > 1e-3]
    constant = len(ratios) and (ratios - ratios.median()).abs().max() < 1e-3
    if constant and abs(ratios.median() - 1) > 1e-2:
        times = f"{ratios.median().item():.4g} times"
        scale = f"a forgotten or doubled scale: mine is {times} theirs"
        found.append(scale if mine.any() else "nothing at all: mine is 0 everywhere")
    many = wrong.float().mean() > 1e-3  # a few zeros and ones are alike by chance
    sort = (t.flatten().sort().values for t in (mine, theirs))
    if many and torch.allclose(*sort, rtol, atol):
        found.append("the right values in the wrong places: a layout, a transpose or a swap")
    if wrong.dim() >= 3:
        time = wrong.dim() - 2
        steps = (mine - theirs).abs().amax([d for d in range(wrong.dim()) if d != time])
        half, late = len(steps) // 2, int((steps > 1e-5).int().argmax())  # the first that is off
        if late > 8 and (steps[late:] > 1e-5).all():
            found.append(f"a limit at position {late}: right before it, wrong from there on")
        elif len(steps) > 8 and steps[0] <= 1e-5 and steps[half:].mean() > steps[1:half].mean():
            found.append("a wrong rotation: nothing at the first position, and more with distance")
        elif len(steps) > 8 and steps[0] <= 1e-5:
            found.append("a mask or a mix that is wrong where there is more than one position")
    if many and wrong.dim() == 4 and 0 < (~wrong).all(-1).all(-1).all(0).sum() < wrong.shape[1]:
        found.append("heads that read the wrong KV head: some heads are right throughout")
    return found
