"""RMSNorm against HuggingFace's LlamaRMSNorm on made-up vectors: Day 4."""

from collections.abc import Iterator

import torch

from nanoserve.checks.common import BF16, F16, F32, KIND, agree, attempt, stack
from nanoserve.comparison import Scoreboard
from nanoserve.config import ModelConfig
from nanoserve.layers import RMSNorm
from nanoserve.loader import load_weights
from nanoserve.reference import Reference, modeling_llama

C = 48
EPS = (1e-6, 1e-5, 1e-2)
SCALES = (0.0, 1e-4, 1e-2, 1.0, 1e4, 1e8)
DTYPES = ((F32, F32), (BF16, BF16), (F16, F16), (BF16, F32), (F32, BF16))  # of x, of the gain
SHAPES = ((3, 5, C), (1, 4, C), (7, C), (2, 3, 2, C), (C,))


def check_norm(board: Scoreboard) -> None:
    """Zero, tiny, usual and huge vectors in several shapes and dtypes; gradients."""
    for eps in EPS:
        for scale in SCALES:
            for dtype, gain in DTYPES:
                if 6 * scale < torch.finfo(dtype).max:
                    check_inputs(board, eps, scale, dtype, gain)
    check_gradients(board)


def loaded_norms(
    ref: Reference, config: ModelConfig, dtype: torch.dtype
) -> Iterator[tuple[str, RMSNorm]]:
    """Both norms of every layer of a checkpoint and the last one, by name."""

    def norm() -> RMSNorm:
        return RMSNorm(config.hidden_size, config.rms_norm_eps)

    model = stack(config, attn_norm=norm, mlp_norm=norm)
    model["norm"] = norm().requires_grad_(False)
    load_weights(model.to(dtype), ref.path)
    for name, module in model.named_modules():
        if isinstance(module, RMSNorm):
            yield name, module


def pair(eps: float, gain: torch.dtype) -> tuple:
    """Our norm and HuggingFace's, with the same gains, some of them negative."""
    mine = attempt("a new RMSNorm", RMSNorm, C, eps)
    agree("its parameters", [name for name, _ in mine.named_parameters()], ["weight"])
    agree("its gains are all 1", mine.weight.eq(1).all().item(), True)
    theirs = modeling_llama.LlamaRMSNorm(C, eps)
    for norm in (mine, theirs):
        norm.weight.data = torch.linspace(-0.3, 2.0, C)
    return mine.to(gain), theirs.to(gain)


def inputs(scale: float, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """Seeded vectors, of every shape twice: nothing may be left over from the first."""
    seeded = torch.Generator().manual_seed(1)
    for shape in SHAPES * 2:
        x = (torch.randn(shape, generator=seeded) * scale + scale).to(dtype)
        yield x.transpose(0, 1) if len(shape) > 2 else x  # not in order


@torch.inference_mode()
def check_inputs(
    board: Scoreboard, eps: float, scale: float, dtype: torch.dtype, gain: torch.dtype
) -> None:
    """One pair of norms on vectors of one scale; a vector of zeros stays finite."""
    mine, theirs = pair(eps, gain)
    for x in inputs(scale, dtype):
        name = f"eps {eps:g}, {[*x.shape]} x {scale:g}, {KIND[dtype]}, gain {KIND[gain]}"
        got = attempt(name, mine, x)
        agree(f"{name}, finite", got.isfinite().all().item(), True)
        board.compare(None, "RMSNorm", name, got, theirs(x))


def check_gradients(board: Scoreboard) -> None:
    """By the input, and by the gain."""
    seeded = torch.Generator().manual_seed(2)
    x = torch.randn(2, 5, 12, generator=seeded, requires_grad=True)
    found = []
    for norm in (RMSNorm(12, 1e-5), modeling_llama.LlamaRMSNorm(12, 1e-5)):
        loss = attempt("an input with a gradient", norm, x).square().sum()
        found.append(attempt("gradients", torch.autograd.grad, loss, [x, norm.weight]))
    for got, wanted in zip(*found, strict=True):
        board.compare(None, "RMSNorm, gradients", f"of {[*got.shape]}", got, wanted)
