"""What only values tell: a head that is not the embedding, NaN and infinity: Day 3."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from nanoserve.checks.common import F16, F32, F64, alike
from nanoserve.checks.made import DOWN, EMBED, FILE, HEAD, NORM, empty_model, read_tensors
from nanoserve.checks.refused import accepted, sevens, spoilt, with_tensors
from nanoserve.loader import load_weights
from nanoserve.reference import our_name


def check_tied_head(path: Path) -> Iterator[str]:
    """A head in the file of a tied model must be the embedding, even where neither is loaded."""
    embed = read_tensors(path / FILE)[EMBED]
    head, odd = embed.clone(), embed.clone()
    head[-1, -1] += 1
    odd[1, 2] = torch.nan
    part = sevens({"norm.weight": (24,)})
    other = {HEAD: head}
    yield from spoilt("a tied head of other values", path, other, HEAD, "values differ")
    yield from spoilt("a tied head of fewer rows", path, {HEAD: embed[1:]}, HEAD, "[36, 24]")
    yield from spoilt("a part, and a tied head of other values", path, other, HEAD, model=part)
    yield from spoilt("a tied head and no embedding", path, {EMBED: None, HEAD: head}, EMBED)
    for what, changes in (
        ("a tied head, equal", {HEAD: embed}),
        ("a tied head, equal and in fp64", {HEAD: embed.to(F64)}),
        ("a tied head, equal, NaN too", {HEAD: odd, EMBED: odd}),
    ):
        yield from with_tensors(path, changes, lambda what=what: accepted(what, path))


def check_warnings(path: Path) -> Iterator[str]:
    """NaN and infinity are loaded with a warning; so is what the model's dtype cannot hold."""
    good = read_tensors(path / FILE)
    shapes = {our_name(name): tensor.shape for name, tensor in good.items()}
    for value, dtype, count in (
        (torch.nan, F32, 1),
        (torch.inf, F32, 1),
        (-torch.inf, F32, 1),
        (1e30, F32, 0),
        (1e30, F16, 1),
        (torch.finfo(F32).max, F32, 0),  # finite, and no sum of them is
    ):
        odd = {name: tensor.clone() for name, tensor in good.items()}
        odd[DOWN][0, :2] = odd[NORM][-2:] = value
        save_file(odd, path / FILE)
        model = empty_model(shapes, dtype)
        what = f"weights of {value:g}, loaded in {str(dtype)[6:]}"
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                load_weights(model, str(path))
            except NotImplementedError:  # a practice notebook's blank says so itself
                raise
            except Exception as error:
                yield f"{what}: load_weights must load them, it raised {error!r}"
                continue
        text = [str(warning.message) for warning in told]
        named = {name for name in good if any(name in one for one in text)}
        wanted = {DOWN, NORM} if count else set()
        if (len(told), named) != (count, wanted):
            yield (
                f"{what}: load_weights must warn {count} times, naming {sorted(wanted)}; "
                f"it warned {len(told)} times: {text}"
            )
        if not alike(model.get_parameter("norm.weight").detach(), odd[NORM].to(dtype)):
            yield f"{what}: load_weights must copy them as they are, and {NORM} is otherwise"
    save_file(good, path / FILE)
