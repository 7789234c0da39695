"""SwiGLU against HuggingFace's LlamaMLP on made-up weights and inputs: Day 5."""

from collections.abc import Iterator

import torch

from nanoserve.checks.common import BF16, F32, F64, KIND, agree, attempt
from nanoserve.comparison import Scoreboard
from nanoserve.layers import Linear, SwiGLU
from nanoserve.reference import modeling_llama, transformers

BARS = {F32: {}, BF16: {}, F64: {"rtol": 1e-12, "atol": 1e-12}}
SIZES = ((24, 40), (40, 24), (32, 32), (10, 33))  # C and F


def check_swiglu(board: Scoreboard) -> None:
    """Shapes, dtypes and sizes of input; gradients; what is refused, and what is hidden."""
    for C, wide in SIZES:
        for dtype in BARS:
            check_inputs(board, C, wide, dtype)
    check_gradients(board)
    check_nan()
    check_made()


def pair(C: int, wide: int, dtype: torch.dtype) -> tuple:
    """Our MLP and HuggingFace's, with the same seeded weights."""
    sizes = {"hidden_size": C, "intermediate_size": wide}
    torch.manual_seed(C)
    config = transformers.LlamaConfig(**sizes, num_attention_heads=1)
    theirs = modeling_llama.LlamaMLP(config).to(dtype)
    state = torch.get_rng_state()
    mine = attempt(sizes, SwiGLU, **sizes).to(dtype)
    drawn = not torch.equal(state, torch.get_rng_state())
    agree("random weights, only to be overwritten", drawn, False)
    # The same names, the same shapes and no bias.
    attempt(sizes, mine.load_state_dict, theirs.state_dict())
    return mine, theirs


def inputs(C: int, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Vectors, batches, odd and even T, none at all, long and strided ones; three sizes."""
    shapes = [(C,), (1, C), (1, 1, C), (3, 1, C), (2, 8, C), (3, 7, C)]
    shapes += [(0, C), (2, 0, C), (2, 3, 5, C), (1, 131, C)]
    seeded = torch.Generator().manual_seed(C)
    for shape in shapes:
        for size in (1e-3, 1.0, 1e6):
            x = torch.randn(shape, generator=seeded) * size
            yield f"{[*shape]} x {size:g}", x.to(dtype)
    yield "long", torch.randn(2, 2050, C, generator=seeded).to(dtype)
    x = torch.randn(6, 5, 2 * C, generator=seeded).to(dtype)
    yield "strided", x.transpose(0, 1)[..., ::2]
    yield "expanded", x[:1, :1, :C].expand(3, 4, C)


@torch.inference_mode()
def check_inputs(board: Scoreboard, C: int, wide: int, dtype: torch.dtype) -> None:
    """One pair of MLPs on every input, in training mode too; wrong widths are refused."""
    mine, theirs = pair(C, wide, dtype)
    for what, x in inputs(C, dtype):
        name, wanted = f"{C} to {wide}, {what}", theirs(x)
        for mode in (True, False):
            got = attempt(name, mine.train(mode), x)
            if wanted.numel():
                board.compare(None, f"MLP, {KIND[dtype]}", name, got, wanted, **BARS[dtype])
            agree(f"{name}, shape and dtype", (got.shape, got.dtype), (wanted.shape, wanted.dtype))
    for bad in (C + 1, 1):
        try:
            mine(torch.ones(2, bad, dtype=dtype))
        except RuntimeError:
            continue
        raise AssertionError(f"{bad} numbers a token were taken, {C} are right")


def check_gradients(board: Scoreboard) -> None:
    """By the input, and by each of the three matrices."""
    mine, theirs = pair(24, 40, F32)
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = []
    for mlp in (mine, theirs):
        loss = attempt("an input with a gradient", mlp, x).square().sum()
        leaves = [x, *mlp.parameters()]
        found.append(attempt("gradients", torch.autograd.grad, loss, leaves))
    for got, wanted in zip(*found, strict=True):
        board.compare(None, "MLP, gradients", f"of {[*got.shape]}", got, wanted)


@torch.inference_mode()
def check_nan() -> None:
    """A NaN in one token neither spreads to others nor is hidden."""
    mine, _ = pair(24, 40, F32)
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))
    x[0, 2, 3] = torch.nan
    hurt = attempt("a NaN", mine, x).isnan()
    agree("a NaN is seen in all of its token", hurt[0, 2].all().item(), True)
    agree("values that it reaches", hurt.sum().item(), 24)


def check_made() -> None:
    """Linear has no bias; a module is made on the device that is asked for."""
    layer = Linear(3, 5)
    agree("bias", layer.bias, None)
    agree("shape", tuple(layer.weight.shape), (5, 3))
    with torch.device("meta"):
        mlp = attempt("made elsewhere", SwiGLU, 8, 12)
        out = attempt("run elsewhere", mlp, torch.empty(2, 3, 8))
    agree("device", out.device.type, "meta")
