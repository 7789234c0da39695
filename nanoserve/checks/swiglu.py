"""SwiGLU against HuggingFace's LlamaMLP on made-up weights and inputs: Day 5."""

from collections.abc import Iterator

import torch
from torch.nn import functional as F

from nanoserve.checks.common import BF16, F16, F32, F64, KIND, alike, attempt, holds
from nanoserve.comparison import Scoreboard
from nanoserve.layers import Linear, SwiGLU
from nanoserve.reference import modeling_llama, transformers
from nanoserve.signatures import Lookalikes

EXACT = {"rtol": 0.0, "atol": 0.0}  # half precision shows each step that is done otherwise
BARS = {F32: {}, BF16: EXACT, F16: EXACT, F64: EXACT}
SIZES = ((24, 40), (40, 24), (32, 32), (10, 33))  # C and F


def check_swiglu(board: Scoreboard) -> None:
    """Shapes, dtypes and sizes of input; state; gradients; what is refused, and what is hidden."""
    for C, wide in SIZES:
        for dtype in BARS:
            check_inputs(board, C, wide, dtype)
            check_state(board, C, wide, dtype)
    for dtype in BARS:
        check_not_numbers(dtype)
    check_gradients(board)
    check_made()


def mlp_slips(mlp, x: torch.Tensor) -> Lookalikes:
    """What known mistakes make of x with an MLP's three matrices."""

    def forward(product) -> torch.Tensor:
        h = product(F.linear(x, mlp.gate_proj.weight), F.linear(x, mlp.up_proj.weight))
        return F.linear(h, mlp.down_proj.weight)

    return {
        "the MLP with gate and up swapped": lambda: forward(lambda g, u: F.silu(u) * g),
        "the MLP with GELU for SiLU": lambda: forward(lambda g, u: F.gelu(g) * u),
        "the MLP with tanh's GELU for SiLU": lambda: forward(
            lambda g, u: F.gelu(g, approximate="tanh") * u
        ),
        "the MLP with relu for SiLU": lambda: forward(lambda g, u: F.relu(g) * u),
        "the MLP with a sigmoid for SiLU": lambda: forward(lambda g, u: torch.sigmoid(g) * u),
        "the MLP with silu on the product": lambda: forward(lambda g, u: F.silu(g * u)),
        "the MLP without a nonlinearity": lambda: forward(lambda g, u: g * u),
        "the MLP without up": lambda: forward(lambda g, u: F.silu(g)),
        "the MLP without its gate": lambda: forward(lambda g, u: F.silu(u)),
        "the MLP whose silu is written out, which rounds once more": lambda: forward(
            lambda g, u: g * torch.sigmoid(g) * u
        ),
    }


def pair(C: int, wide: int, dtype: torch.dtype) -> tuple:
    """Our MLP and HuggingFace's, with the same seeded weights; cast after a first use."""
    sizes = {"hidden_size": C, "intermediate_size": wide}
    torch.manual_seed(C)
    config = transformers.LlamaConfig(**sizes, num_attention_heads=1)
    theirs = modeling_llama.LlamaMLP(config)
    state = torch.get_rng_state()
    mine = attempt(f"SwiGLU({C}, {wide})", SwiGLU, **sizes)
    drawn = not torch.equal(state, torch.get_rng_state())
    holds("A new SwiGLU must draw no random weights, only to be overwritten", not drawn)
    # The same names, the same shapes and no bias.
    attempt(f"loading a SwiGLU({C}, {wide})", mine.load_state_dict, theirs.state_dict())
    attempt(f"SwiGLU({C}, {wide}) on ones", mine, torch.ones(2, C))
    return mine.to(dtype), theirs.to(dtype)


def inputs(C: int, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Vectors, batches, odd and even T, none at all, long and strided ones; three sizes."""
    shapes = [(C,), (1, C), (1, 1, C), (3, 1, C), (2, 8, C), (3, 7, C)]
    shapes += [(0, C), (2, 0, C), (2, 3, 5, C), (1, 131, C)]
    seeded = torch.Generator().manual_seed(C)
    for shape in shapes:
        for size in (1.0, 1e-3, 30.0 if dtype == F16 else 1e6):
            x = torch.randn(shape, generator=seeded) * size
            yield f"{[*shape]} of size {size:g}", x.to(dtype)
    yield f"[2, 4099, {C}]", torch.randn(2, 4099, C, generator=seeded).to(dtype)
    x = torch.randn(6, 5, 2 * C, generator=seeded).to(dtype)
    yield "that is strided", x.transpose(0, 1)[..., ::2]
    yield "that is expanded", x[:1, :1, :C].expand(3, 4, C)


@torch.inference_mode()
def check_inputs(board: Scoreboard, C: int, wide: int, dtype: torch.dtype) -> None:
    """One pair of MLPs on every input, in training mode too; wrong widths are refused."""
    mine, theirs = pair(C, wide, dtype)
    for what, x in inputs(C, dtype):
        name = f"SwiGLU({C}, {wide}) on x {what} in {KIND[dtype]}"
        wanted = theirs(x)
        for mode in (True, False):
            got = attempt(name, mine.train(mode), x)
            if wanted.numel():
                row, slips = f"MLP, {KIND[dtype]}", mlp_slips(theirs, x)
                board.compare(None, row, name, got, wanted, slips, **BARS[dtype])
            same = (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
            mean = f"it gave {[*got.shape]} in {got.dtype}"
            holds(f"{name} must give the shape and dtype of x", same, mean)
    for bad in (C + 1, 1):
        try:
            mine(torch.ones(2, bad, dtype=dtype))
        except RuntimeError:
            continue
        holds(f"An MLP for vectors of {C} numbers must refuse {bad}", False, "it took them")


@torch.inference_mode()
def check_state(board: Scoreboard, C: int, wide: int, dtype: torch.dtype) -> None:
    """Nothing is kept from call to call: input, weights and earlier results are their own."""
    mine, theirs = pair(C, wide, dtype)
    x = torch.randn(2, 5, C, generator=torch.Generator().manual_seed(3)).to(dtype)
    first = attempt("SwiGLU", mine, x)
    before, row = first.clone(), f"MLP, {KIND[dtype]}"

    def hold(changed: str, last: torch.Tensor) -> None:
        name = f"SwiGLU({C}, {wide}), {changed} changed since the last call"
        slips = {"the result before that change": last}
        board.compare(None, row, name, attempt(name, mine, x), theirs(x), slips, **BARS[dtype])

    x += 1
    hold("the input", before)
    for matrix in ("gate_proj", "up_proj", "down_proj"):
        last = theirs(x)
        for mlp in (mine, theirs):
            getattr(mlp, matrix).weight.mul_(-0.5)
        hold(matrix, last)
    holds("An MLP's result must stay as it is when it is called again", alike(first, before))


def check_gradients(board: Scoreboard) -> None:
    """By the input, and by each of the three matrices."""
    mine, theirs = pair(24, 40, F32)
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = []
    for mlp in (mine, theirs):
        loss = attempt("SwiGLU on an input with a gradient", mlp, x).square().sum()
        leaves = [x, *mlp.parameters()]
        found.append(attempt("gradients of SwiGLU", torch.autograd.grad, loss, leaves))
    for got, wanted in zip(*found, strict=True):
        board.compare(None, "MLP, gradients", f"of {[*got.shape]}", got, wanted)


@torch.inference_mode()
def check_not_numbers(dtype: torch.dtype) -> None:
    """NaN, infinity and what overflows come out as from HuggingFace's, in no other token."""
    mine, theirs = pair(24, 40, dtype)
    largest = torch.finfo(dtype).max
    for mixed in (True, False):
        for what in (torch.nan, torch.inf, -torch.inf, largest, largest / 64):
            x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
            x[0, 2] = what
            name = f"An MLP in {KIND[dtype]} on a token of {what:g}"
            same = alike(attempt(name, mine, x), theirs(x))
            holds(f"{name} must give HuggingFace's NaN, infinities and numbers", same)
        if mixed:  # without negative weights, infinities meet no others that cancel them
            for p in (*mine.parameters(), *theirs.parameters()):
                p.abs_()


def check_made() -> None:
    """Linear has no bias; a module is made, and works, on the device that is asked for."""
    layer = Linear(3, 5)
    holds("Linear must have no bias", layer.bias is None)
    shape = tuple(layer.weight.shape)
    holds("The weight of Linear(3, 5) must have shape (5, 3)", shape == (5, 3), f"it has {shape}")
    with torch.device("meta"):
        mlp = attempt("an MLP made on another device (meta)", SwiGLU, 8, 12)
    there = all(p.is_meta for p in mlp.parameters())
    holds('An MLP made inside torch.device("meta") must lie there', there)
    out = attempt("an MLP on another device (meta)", mlp, torch.empty(2, 3, 8, device="meta"))
    holds("The result must be on the input's device", out.is_meta, f"it is on {out.device}")
