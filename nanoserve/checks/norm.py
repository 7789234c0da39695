"""RMSNorm against HuggingFace's LlamaRMSNorm on made-up vectors: Day 4."""

from collections.abc import Iterator

import torch

from nanoserve.checks.common import BF16, F16, F32, F64, KIND, alike, attempt, holds, stack
from nanoserve.comparison import Scoreboard
from nanoserve.config import ModelConfig
from nanoserve.layers import RMSNorm
from nanoserve.loader import load_weights
from nanoserve.reference import Reference, modeling_llama
from nanoserve.signatures import Lookalikes

C = 48
EPS = (1e-6, 1e-5, 1e-2)
SCALES = (0.0, 1e-4, 1e-2, 1.0, 1e4, 1e8)
DTYPES = (  # of x, of the gain
    (F32, F32),
    (BF16, BF16),
    (F16, F16),
    (F64, F64),
    (BF16, F32),
    (F32, BF16),
)
SHAPES = ((3, 5, C), (1, 4, C), (7, C), (2, 3, 2, C), (C,))
EXACT = {"rtol": 0.0, "atol": 0.0}  # half precision shows each step that is done otherwise


def check_norm(board: Scoreboard) -> None:
    """Zero, tiny, usual and huge vectors in several shapes and dtypes; state; gradients."""
    for eps in EPS:
        for dtype, gain in DTYPES:
            for scale in SCALES:
                if 6 * scale < torch.finfo(dtype).max:
                    check_inputs(board, eps, scale, dtype, gain)
            check_state(board, eps, dtype, gain)
    check_not_numbers()
    check_device()
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


def norm_slips(x: torch.Tensor, gain: torch.Tensor, eps: float) -> Lookalikes:
    """What known mistakes make of x."""

    def scaled(h: torch.Tensor, add: float) -> torch.Tensor:
        return h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + add)

    h = x.float()
    root = h.pow(2).mean(-1, keepdim=True).sqrt()
    return {
        "the norm without its gain": lambda: scaled(h, eps).to(x.dtype),
        "the norm whose gain comes before the cast": lambda: (gain * scaled(h, eps)).to(x.dtype),
        "the norm with eps outside the root": lambda: gain * (h / (root + eps)).to(x.dtype),
        "the norm without eps": lambda: gain * scaled(h, 0).to(x.dtype),
        "the norm with an eps of 1e-6": lambda: gain * scaled(h, 1e-6).to(x.dtype),
        "LayerNorm's, which subtracts the mean first": lambda: (
            gain * scaled(h - h.mean(-1, keepdim=True), eps).to(x.dtype)
        ),
        "the norm whose statistics stay in x's dtype": lambda: gain * scaled(x, eps),
    }


def pair(eps: float, gain: torch.dtype) -> tuple:
    """Our norm and HuggingFace's, with the same gains, some negative; cast after a first use."""
    mine = attempt("a new RMSNorm", RMSNorm, C, eps)
    names = [name for name, _ in mine.named_parameters()]
    holds("RMSNorm must have one parameter, named weight", names == ["weight"], f"it has {names}")
    holds("The gains of a new RMSNorm must all be 1", bool(mine.weight.eq(1).all()))
    theirs = modeling_llama.LlamaRMSNorm(C, eps)
    attempt("a new RMSNorm, used", mine, torch.ones(2, C))
    for norm in (mine, theirs):
        norm.weight.data = torch.linspace(-0.3, 2.0, C)
    return mine.to(gain), theirs.to(gain)


def inputs(scale: float, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """Seeded vectors, of every shape twice: nothing may be left over from the first."""
    seeded = torch.Generator().manual_seed(1)
    for shape in SHAPES * 2:
        x = (torch.randn(shape, generator=seeded) * scale + scale).to(dtype)
        yield x.transpose(0, 1) if len(shape) > 2 else x  # not in order
    if scale == 1:
        yield torch.randn(1, 4099, C, generator=seeded).to(dtype)


@torch.inference_mode()
def check_inputs(
    board: Scoreboard, eps: float, scale: float, dtype: torch.dtype, gain: torch.dtype
) -> None:
    """One pair of norms on vectors of one scale; a vector of zeros stays finite."""
    mine, theirs = pair(eps, gain)
    for x in inputs(scale, dtype):
        given = f"x {[*x.shape]} of size {scale:g} in {KIND[dtype]}"
        name = f"RMSNorm with eps {eps:g} and a gain in {KIND[gain]} on {given}"
        got = attempt(name, mine, x)
        finite = bool(got.isfinite().all())
        holds(f"{name} must be finite", finite, "it gave NaN or infinity")
        compare_norm(board, name, got, theirs(x), norm_slips(x, theirs.weight, eps))


def compare_norm(board: Scoreboard, name: str, got, wanted, slips: Lookalikes) -> None:
    """Equal in half precision and in float64, within 1e-5 in float32."""
    bar = {} if wanted.dtype == F32 else EXACT
    board.compare(None, "RMSNorm", name, got, wanted, slips, **bar)


@torch.inference_mode()
def check_state(board: Scoreboard, eps: float, dtype: torch.dtype, gain: torch.dtype) -> None:
    """Nothing is kept from call to call: the input, the gain and earlier results are their own."""
    mine, theirs = pair(eps, gain)
    x = torch.randn(2, 5, C, generator=torch.Generator().manual_seed(3)).to(dtype)
    first = attempt("RMSNorm", mine, x)
    before = first.clone()
    x += 1
    name = f"RMSNorm on a tensor that has changed since the last call, {KIND[dtype]}"
    compare_norm(board, name, attempt(name, mine, x), theirs(x), {"the last result": before})
    for norm in (mine, theirs):
        norm.weight.mul_(2)
    name = f"RMSNorm with a gain that has changed since the last call, {KIND[dtype]}"
    compare_norm(
        board,
        name,
        attempt(name, mine, x),
        theirs(x),
        {"the last result with the old gain": theirs(x) / 2},
    )
    holds("A norm's result must stay as it is when the norm is called again", alike(first, before))


@torch.inference_mode()
def check_not_numbers() -> None:
    """NaN and infinity come out where HuggingFace has them, and in no other token."""
    for dtype, gain in DTYPES:
        mine, theirs = pair(1e-5, gain)
        for what in (torch.nan, torch.inf, -torch.inf):
            x = torch.randn(2, 5, C, generator=torch.Generator().manual_seed(4)).to(dtype)
            x[0, 2, 3] = what
            got = attempt(f"RMSNorm on a vector with {what}", mine, x)
            same = alike(got, theirs(x))
            holds(f"RMSNorm of a vector with {what}, in {KIND[dtype]}, must be HuggingFace's", same)


def check_device() -> None:
    """A norm works where its gain and its input are."""
    norm = RMSNorm(C, 1e-5).to("meta")
    out = attempt("RMSNorm on another device (meta)", norm, torch.empty(2, C, device="meta"))
    holds("The result must be on the input's device", out.is_meta, f"it is on {out.device}")


def check_gradients(board: Scoreboard) -> None:
    """By the input, and by the gain."""
    seeded = torch.Generator().manual_seed(2)
    x = torch.randn(2, 5, 12, generator=seeded, requires_grad=True)
    found, by = [], "gradients of RMSNorm by its input and its gain"
    for norm in (RMSNorm(12, 1e-5), modeling_llama.LlamaRMSNorm(12, 1e-5)):
        loss = attempt("RMSNorm on an input with a gradient", norm, x).square().sum()
        found.append(attempt(by, torch.autograd.grad, loss, [x, norm.weight]))
    for got, wanted in zip(*found, strict=True):
        board.compare(None, "RMSNorm, gradients", f"of {[*got.shape]}", got, wanted)
