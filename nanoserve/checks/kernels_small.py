"""The small kernels against HuggingFace's own modules on odd sizes: Day 22.

By Triton's interpreter where there is no GPU. It knows float16 as a card does, and bf16 it does
not: what is narrow is tried in the one or the other, and judged by the law of tolerance.
"""

import torch
from torch import nn
from torch.nn import functional as F

from nanoserve.checks.common import BF16, F16, F32, KIND, agree, alike, attempt, holds
from nanoserve.checks.kernels_memory import Fences, check_memory, must_reach, stored, unsaid
from nanoserve.checks.law import lawful
from nanoserve.comparison import Scoreboard
from nanoserve.kernels.mlp import silu_mul
from nanoserve.kernels.norm import rms_norm
from nanoserve.kernels.rope import rope_write
from nanoserve.reference import modeling_llama, transformers
from nanoserve.signatures import Lookalikes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# And of how many of the sizes below.
DTYPES = {F32: 9, BF16: 9} if DEVICE == "cuda" else {F32: 9, F16: 2}
NORMS = ((3, 100), (1, 576), (40, 100), (3, 576), (2, 512), (1, 1200), (40, 576))  # rows and C
GATES = ((3, 100), (1, 1536), (2, 1024), (40, 100), (1, 2049))  # rows and F
# Rows, KV heads, query heads for each, head_dim.
TURNS = ((3, 2, 4, 20), (1, 3, 3, 64), (2, 1, 1, 64), (2, 2, 8, 6), (40, 1, 2, 20))
Tensor = torch.Tensor


def made(*shape: int, dtype: torch.dtype = F32, size: float = 1.0, seed: int = 0) -> Tensor:
    """Seeded numbers where the kernels run."""
    seeded = torch.Generator().manual_seed(seed + sum(shape))
    return (torch.randn(shape, generator=seeded) * size).to(DEVICE, dtype)


def hold(
    board: Scoreboard, part: str, name: str, mine: Tensor, theirs: Tensor, exact: Tensor,
    slips: Lookalikes,
) -> None:  # fmt: skip
    """Float32 within 1e-5 of HuggingFace's, what is narrower by the law."""
    stored(name, mine)
    agree(f"{name}: dtype and shape", (mine.dtype, mine.shape), (theirs.dtype, theirs.shape))
    if mine.dtype == F32:
        there = {slip: lambda act=act: act().cpu() for slip, act in slips.items()}
        board.compare(None, part, name, mine.cpu(), theirs.cpu(), there)
    else:
        by = f"the error from float64 must be no larger than HuggingFace's in {KIND[mine.dtype]}"
        holds(f"{name}: {by}", lawful(mine, theirs, exact))


@torch.inference_mode()
def check_norms(board: Scoreboard) -> None:
    """RMSNorm, with and without a residual, of rows that lie in the middle of other memory."""
    for dtype, most in DTYPES.items():
        for rows, C in NORMS[:most]:
            for added in (False, True):
                check_norm(board, rows, C, dtype, added)
        check_rows_apart(dtype)
    check_memory(rms_norm, x=made(3, 8), weight=made(8), eps=1e-5, delta=made(3, 8))


def check_norm(board: Scoreboard, rows: int, C: int, dtype: torch.dtype, added: bool) -> None:
    theirs = modeling_llama.LlamaRMSNorm(C, 3e-3).to(DEVICE, dtype)
    theirs.weight.data = made(C, dtype=dtype, seed=1)
    memory = torch.full((rows + 2, C), torch.nan, dtype=dtype, device=DEVICE)
    x, delta = memory[1:-1], made(rows, C, dtype=dtype, seed=2)
    x[:] = made(rows, C, dtype=dtype) * made(rows, 1, dtype=dtype, seed=3).exp()
    before, weight, kept = x.clone(), theirs.weight.clone(), delta.clone()
    total = x + delta if added else before
    name = f"rms_norm of {[rows, C]} in {KIND[dtype]}{', with a residual' * added}"
    if added:
        with Fences(name), unsaid():
            got = attempt(name, lambda: rms_norm(x, weight, 3e-3, delta))
        holds(f"{name} must leave delta as it is", alike(delta, kept))
        slips = {"x as it was": lambda: before, "x + 2 delta": lambda: before + 2 * delta}
        hold(board, "x + delta", f"x after {name}", x, total, total.double(), slips)
    else:
        with Fences(name), unsaid():
            got = attempt(name, rms_norm, x, weight, 3e-3)
    holds(f"{name} must leave the gain as it is", alike(weight, theirs.weight))
    holds(f"{name} must write nothing beside its rows", bool(memory[[0, -1]].isnan().all()))
    wide = total.double()
    exact = wide * (wide.pow(2).mean(-1, keepdim=True) + 3e-3).rsqrt() * weight.double()
    slips = {
        "the norm without its gain": lambda: theirs(total) / weight,
        "the norm of x without delta": lambda: theirs(before),
        "the norm without eps": lambda: F.rms_norm(total, (C,), weight, 0.0),
    }
    hold(board, "RMSNorm", name, got, theirs(total), exact, slips)


def check_rows_apart(dtype: torch.dtype) -> None:
    """A row of zeros stays finite, one of NaN is its own; the second call is the first."""
    x, weight = made(4, 100, dtype=dtype), made(100, dtype=dtype, seed=1)
    alone = attempt("rms_norm", rms_norm, x, weight, 1e-5)
    first, x = alone.clone(), x.clone()
    x[1], x[2, 7] = 0.0, torch.nan
    got = attempt("rms_norm of a row of zeros", rms_norm, x, weight, 1e-5)
    holds("rms_norm of a row of zeros must be zeros", bool((got[1] == 0).all()))
    holds("rms_norm of a row with NaN must be NaN", bool(got[2].isnan().all()))
    same = alike(got[[0, 3]], first[[0, 3]]) and alike(alone, first)
    holds("rms_norm must take each row by itself, and keep no result's memory", same)


@torch.inference_mode()
def check_gates(board: Scoreboard) -> None:
    """silu(gate) * up, from nothing to where e to the gate overflows."""
    for dtype, most in DTYPES.items():
        for rows, wide in GATES[:most]:
            for size in (1.0, 60.0):
                check_gate(board, rows, wide, dtype, size)
    check_memory(silu_mul, gate_up=made(3, 8))


class Half(nn.Module):
    """The first or the second half of a row, in the place of a matrix."""

    def __init__(self, which: int):
        super().__init__()
        self.which = which

    def forward(self, x: Tensor) -> Tensor:
        return x.chunk(2, -1)[self.which]


def their_product(gate_up: Tensor) -> Tensor:
    """What HuggingFace's own MLP hands to its last matrix."""
    sizes = {"hidden_size": 32, "intermediate_size": 32}
    mlp = modeling_llama.LlamaMLP(transformers.LlamaConfig(**sizes))
    mlp.gate_proj, mlp.up_proj, mlp.down_proj = Half(0), Half(1), nn.Identity()
    return mlp(gate_up)


def check_gate(board: Scoreboard, rows: int, wide: int, dtype: torch.dtype, size: float) -> None:
    x = made(rows, 2 * wide, dtype=dtype, size=size)
    gate, up = x.double().chunk(2, -1)
    name = f"silu_mul of {[rows, 2 * wide]}, size {size:g}, in {KIND[dtype]}"
    slips = {
        "gate and up exchanged": lambda: their_product(torch.cat([up, gate], -1).to(dtype)),
        "GELU for SiLU": lambda: (F.gelu(gate) * up).to(dtype),
    }
    with Fences(name), unsaid():
        got = attempt(name, silu_mul, x)
    hold(board, "silu(gate) * up", name, got, their_product(x), gate * gate.sigmoid() * up, slips)


@torch.inference_mode()
def check_turns(board: Scoreboard) -> None:
    """RoPE on q and k, and k and v written to their slots of a pool full of NaN."""
    for dtype, most in DTYPES.items():
        for sizes in TURNS[:most]:
            check_turn(board, *sizes, dtype)
    where = torch.arange(2, device=DEVICE)
    given = {"cos": made(9, 3), "sin": made(9, 3, seed=1), "positions": where, "slots": where}
    given |= {"keys": made(4, 1, 6), "values": made(4, 1, 6)}
    check_memory(rope_write, qkv=made(2, 18), **given)
    must_reach(rope_write)


def check_turn(board: Scoreboard, T: int, K: int, G: int, D: int, dtype: torch.dtype) -> None:
    sizes = {"head_dim": D, "max_position_embeddings": 600}
    rotary = modeling_llama.LlamaRotaryEmbedding(transformers.LlamaConfig(**sizes)).to(DEVICE)
    cos, sin = rotary(made(1), torch.arange(600, device=DEVICE)[None])  # (1, 600, D) each
    tables = cos[0, :, : D // 2].contiguous(), sin[0, :, : D // 2].contiguous()
    seeded = torch.Generator().manual_seed(T + D)
    places = torch.randint(600, (T,), generator=seeded).to(DEVICE)
    slots = torch.randperm(300, generator=seeded)[:T].to(DEVICE)
    if K == 2:
        places, slots = places.int(), slots.int()
    qkv = made(T, (G + 2) * K * D, dtype=dtype)
    keys, values = torch.full((2, 302, K, D), torch.nan, dtype=dtype, device=DEVICE)
    name = f"{T} rows, {K} KV heads, {G} queries each, head_dim {D}, {KIND[dtype]}"
    given = qkv, *tables, places, slots
    held = [t.clone() for t in given]
    # A step of the engine lies in a larger buffer: the pool is written, and no slot behind it.
    with Fences(name), unsaid():
        q = attempt(name, lambda: rope_write(*given, keys[:-2], values[:-2]))
    holds(f"{name}: what is given must stay", all(map(alike, held, given)))
    part = [t.unflatten(-1, (-1, D)) for t in qkv.split([K * G * D, K * D, K * D], -1)]
    turned, exact = [], []
    for wide, out in ((False, turned), (True, exact)):
        heads = (t.transpose(0, 1)[None].to(torch.float64 if wide else dtype) for t in part[:2])
        angles = (t[:, places].to(torch.float64 if wide else dtype) for t in (cos, sin))
        both = modeling_llama.apply_rotary_pos_emb(*heads, *angles)
        out += [t[0].transpose(0, 1) for t in both]  # (T, heads, D)
    slips = {"q that has not been turned": lambda: part[0]}
    hold(board, "q turned", f"q of {name}", q, turned[0], exact[0], slips)
    slips = {"k that has not been turned": lambda: part[1]}
    hold(board, "k in its slot", f"k of {name}", keys[slots], turned[1], exact[1], slips)
    slips = {"k": lambda: turned[1]}
    hold(board, "v in its slot", f"v of {name}", values[slots], part[2], part[2].double(), slips)
    rest = torch.ones(len(keys), dtype=torch.bool, device=DEVICE)
    rest[slots] = False
    beside = bool(keys[rest].isnan().all() and values[rest].isnan().all())
    holds(f"{name}: no other slot of the pool may be written", beside)
