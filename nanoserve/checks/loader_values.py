"""What only values tell: a head that is not the embedding, NaN and infinity: Day 3."""

import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file

from nanoserve.checks.common import F16, F32, agree, alike, attempt
from nanoserve.checks.made import DOWN, EMBED, FILE, HEAD, NORM, empty_model, read_tensors
from nanoserve.checks.refused import sevens, spoilt
from nanoserve.loader import load_weights
from nanoserve.reference import our_name


def check_tied_head(path: Path) -> None:
    """A head in the file of a tied model must be the embedding, even where neither is loaded."""
    embed = read_tensors(path / FILE)[EMBED]
    head = embed.clone()
    head[-1, -1] += 1
    part = sevens({"norm.weight": (24,)})
    spoilt("a tied head, other", path, {HEAD: head}, HEAD)
    spoilt("a tied head, short", path, {HEAD: embed[1:]}, HEAD)
    spoilt("a tied head, other, for a part", path, {HEAD: head}, HEAD, model=part)
    spoilt("a tied head alone", path, {EMBED: None, HEAD: head}, EMBED, model=part)


def check_warnings(path: Path) -> None:
    """NaN and infinity are loaded with a warning; so is what the model's dtype cannot hold."""
    good = read_tensors(path / FILE)
    shapes = {our_name(name): tensor.shape for name, tensor in good.items()}
    for value, dtype, warned in (
        (torch.nan, F32, 1),
        (torch.inf, F32, 1),
        (1e30, F32, 0),
        (1e30, F16, 1),
    ):
        odd = {name: tensor.clone() for name, tensor in good.items()}
        odd[DOWN][0, 0] = odd[NORM][-1] = value
        save_file(odd, path / FILE)
        model = empty_model(shapes, dtype)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            attempt(f"weights of {value}", load_weights, model, str(path))
        text = " ".join(str(warning.message) for warning in told)
        agree(f"weights of {value}: warnings", len(told), warned)
        named = DOWN in text and NORM in text
        agree(f"weights of {value}: both named in {text!r}", named, bool(warned))
        mine = model.get_parameter("norm.weight").detach()
        same = alike(mine, odd[NORM].to(dtype))
        agree(f"weights of {value} are loaded", same, True)
    save_file(good, path / FILE)
