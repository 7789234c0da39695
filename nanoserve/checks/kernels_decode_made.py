"""Small models for the kernels of one token, made by HuggingFace: Day 25."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy
import torch

from nanoserve.checks.model import make
from nanoserve.checks.model_loading import load
from nanoserve.comparison import MADE_UP
from nanoserve.model import Llama

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = {"hidden_size": 12, "intermediate_size": 11, "vocab_size": 19}  # no powers of 2


def fenced(t: torch.Tensor) -> torch.Tensor:
    """A copy with NaN behind it, for kernels that read or write past the end."""
    held = torch.full((t.numel() + 64,), torch.nan, device=DEVICE)
    return held[: t.numel()].view(t.shape).copy_(t)


def fence_stands(t: torch.Tensor) -> bool:
    """Whether the NaN behind a fenced tensor is still there; a store without a mask goes on."""
    memory = t.new_empty(0).set_(t.untyped_storage())
    return bool(memory[t.storage_offset() + t.numel() :].isnan().all())


@contextmanager
def anything() -> Iterator[None]:
    """In a `with`: a masked load without `other` brings infinity; a card may bring anything."""
    # Here, for it is nanoserve.kernels that finds Triton.
    from triton.runtime.interpreter import TensorHandle, interpreter_builder

    load = interpreter_builder.create_masked_load

    def loaded(ptrs, mask, other, *how):
        kind = ptrs.get_element_ty()
        if other is None and kind.is_fp32():
            other = TensorHandle(numpy.full_like(ptrs.data, numpy.inf, numpy.float32), kind)
        return load(ptrs, mask, other, *how)

    seen = patch.object(interpreter_builder, "create_masked_load", loaded)
    with seen, numpy.errstate(all="ignore"):
        yield


def heads(H: int, K: int, D: int, tied: bool) -> dict:
    """Of a config: query heads, KV heads, their size; an untied head comes with another eps."""
    found = {"num_attention_heads": H, "num_key_value_heads": K, "head_dim": D}
    return found | {"tie_word_embeddings": tied, "rms_norm_eps": 1e-5 if tied else 1e-3}


def made(variant: dict, layers: int = 1) -> tuple[torch.nn.Module, Llama]:
    """HuggingFace's model, and ours of its files, both where the kernels run."""
    small = SMALL | {"num_hidden_layers": layers, "max_position_embeddings": 64}
    with patch.dict("nanoserve.checks.model.SIZES", small):
        theirs = make(variant).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(Path(folder) / MADE_UP)
        model = load(Path(folder) / MADE_UP)
    return theirs.to(DEVICE), model.to(DEVICE)
