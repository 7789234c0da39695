"""What a mismatch looks like, and the known mistakes that look like that."""

import torch


def signature(
    mine: torch.Tensor, theirs: torch.Tensor, rtol: float = 1e-5, atol: float = 1e-5
) -> list[str]:
    """Sentences on where (B, T, ...) or (B, H, T, ...) tensors part, and a likely cause."""
    if mine.shape != theirs.shape:
        return []
    dtype = theirs.dtype if theirs.is_floating_point() else torch.float64
    step = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    mine, theirs = mine.detach().double(), theirs.detach().double()
    wrong = ~torch.isclose(mine, theirs, rtol=rtol, atol=atol)
    if not wrong.any():
        return []
    first = tuple(wrong.nonzero()[0].tolist())
    lines = [
        f"First at {list(first)}: mine {mine[first].item():.8g}, "
        f"HuggingFace's {theirs[first].item():.8g}; "
        f"{wrong.sum().item()} of {wrong.numel()} values are off."
    ]
    lines += spread(wrong)
    if (mine - theirs).abs().max() <= 8 * step * theirs.abs().max():
        return [*lines, "Looks like rounding: a cast, or a sum, in another place or order."]
    return lines + [f"Looks like {cause}." for cause in causes(mine, theirs, wrong, rtol, atol)]


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
        found.append(f"a forgotten or doubled scale: mine is {times} theirs")
    if torch.allclose(mine.flatten().sort().values, theirs.flatten().sort().values, rtol, atol):
        found.append("the right values in the wrong places: a layout, a transpose or a swap")
    if wrong.dim() >= 3:
        time = wrong.dim() - 2
        steps = (mine - theirs).abs().amax([d for d in range(wrong.dim()) if d != time])
        half = len(steps) // 2
        if len(steps) > 8 and steps[0] <= 1e-5 and steps[half:].mean() > steps[1:half].mean():
            found.append("a wrong rotation: nothing at the first position, and more with distance")
        elif len(steps) > 8 and steps[0] <= 1e-5:
            found.append("a mask or a mix that is wrong where there is more than one position")
    if wrong.dim() == 4 and 0 < (~wrong).all(-1).all(-1).all(0).sum() < wrong.shape[1]:
        found.append("heads that read the wrong KV head: some heads are right throughout")
    return found
