"""The Attention module against HuggingFace's LlamaAttention, on made-up weights: Day 6.

In shapes: B batch, T time, C hidden_size, D head_dim.
"""

from itertools import product

import torch
from torch import nn

from nanoserve.checks.attention import BARS, causal_mask
from nanoserve.checks.common import BF16, F32, KIND, agree, attempt, holds
from nanoserve.checks.device import OneDevice
from nanoserve.comparison import Scoreboard
from nanoserve.config import ModelConfig
from nanoserve.layers import Attention
from nanoserve.reference import modeling_llama, transformers

SHAPES = ((24, 6, 2, 10), (32, 4, 4, 8), (20, 5, 1, 6), (40, 8, 4, 2))  # C, H, K, D
SIZES = ((1, 1), (2, 1), (2, 7), (3, 24), (1, 33))  # B, T
# Products of few rows round otherwise, where HuggingFace has many.
LOOSE = {"rtol": 1e-4, "atol": 1e-4}


@torch.no_grad()
def check_module(board: Scoreboard) -> None:
    """Widths, batches and lengths in fp32 and bf16; gradients; NaN; on the meta device."""
    for shape, dtype in product(SHAPES, (F32, BF16)):
        mine, theirs = pair(llama_config(*shape), dtype)
        for B, T in SIZES:
            check_outputs(board, mine, theirs, B, T)
            if dtype == F32:
                check_gradients(board, mine, theirs, B, T)
        check_refilled(board, mine, theirs)
    check_nan(mine)
    check_meta()


def llama_config(C: int, H: int, K: int, D: int) -> transformers.LlamaConfig:
    """HuggingFace's config of one attention."""
    return transformers.LlamaConfig(
        hidden_size=C,
        num_attention_heads=H,
        num_key_value_heads=K,
        head_dim=D,
        attn_implementation="eager",
    )


def pair(config: transformers.LlamaConfig, dtype: torch.dtype) -> tuple:
    """Our module and HuggingFace's, with the same seeded weights."""
    theirs = modeling_llama.LlamaAttention(config, layer_idx=0)
    seeded = torch.Generator().manual_seed(3)
    for parameter in theirs.parameters():
        parameter.data.normal_(0, parameter.shape[1] ** -0.5, generator=seeded)
    state = torch.get_rng_state()
    mine = attempt("Attention", Attention, ModelConfig.from_dict(config.to_dict()))
    holds(
        "Attention must draw no random weights, only to be overwritten (Linear draws none)",
        torch.equal(state, torch.get_rng_state()),
    )
    shapes = [{name: [*p.shape] for name, p in m.named_parameters()} for m in (mine, theirs)]
    agree("Attention's parameters, which have HuggingFace's names and no biases", *shapes)
    attempt("Attention, its parameters loaded", mine.load_state_dict, theirs.state_dict())
    return mine.to(dtype), theirs.to(dtype)


def inputs(theirs: nn.Module, B: int, T: int, one: bool) -> tuple:
    """Seeded x (B, T, C), and cos and sin (B, T, D) from one start for all rows or one a row."""
    config, dtype = theirs.config, theirs.q_proj.weight.dtype
    seeded = torch.Generator().manual_seed(T)
    x = torch.randn(B, T, config.hidden_size, generator=seeded).to(dtype)
    starts = torch.tensor([5, 5, 5] if one else [5, 0, 1000])[:B, None]
    cos, sin = modeling_llama.LlamaRotaryEmbedding(config)(x, torch.arange(T) + starts)
    return x, cos, sin


def check_outputs(board: Scoreboard, mine: nn.Module, theirs: nn.Module, B: int, T: int) -> None:
    """With one table for all rows and with one a row, in training mode and out of it."""
    for one in (False, True):
        x, cos, sin = inputs(theirs, B, T, one)
        what, kind = f"{x.shape[2]} wide, B {B}, T {T}", KIND[x.dtype]
        wanted = theirs(x, (cos, sin), causal_mask(T, T, x.dtype))[0]
        if one:
            cos, sin = cos[0], sin[0]
        for mode in (True, False):
            out = attempt(what, mine.train(mode), x, cos, sin)
            board.compare(None, f"module, {kind}", what, out, wanted, **BARS[x.dtype])


def check_gradients(board: Scoreboard, mine: nn.Module, theirs: nn.Module, B: int, T: int) -> None:
    """By the input, and by each of the four matrices."""
    x, cos, sin = inputs(theirs, B, T, one=True)
    x.requires_grad_(True)
    what, mask = f"{x.shape[2]} wide, B {B}, T {T}", causal_mask(T, T, x.dtype)
    with torch.enable_grad():
        out = attempt(what, mine, x, cos, sin)
        wanted = theirs(x, (cos, sin), mask)[0]
        found = []
        for module, result in ((mine, out), (theirs, wanted)):
            leaves = [x, *module.parameters()]
            loss = result.square().sum()
            found.append(attempt(what, torch.autograd.grad, loss, leaves))
    for by, got, right in zip("xqkvo", *found, strict=True):
        board.compare(None, "gradients", f"{what}, gradient by {by}", got, right, **LOOSE)


def check_refilled(board: Scoreboard, mine: nn.Module, theirs: nn.Module) -> None:
    """The same x, cos and sin with other values in them, as a loop reuses them."""
    given = inputs(theirs, 2, 7, one=False)
    mask, dtype = causal_mask(7, 7, given[0].dtype), given[0].dtype
    for turn in ("first", "second"):
        name = f"{given[0].shape[2]} wide, the same tensors, {turn} time"
        wanted = theirs(given[0], given[1:], mask)[0]
        out = attempt(name, mine, *given)
        board.compare(None, f"module, {KIND[dtype]}", name, out, wanted, **BARS[dtype])
        for t in given:
            t.copy_(t.flip(1))


def check_nan(mine: nn.Module) -> None:
    """A token that is NaN is NaN in its own output and in every later one, of its row alone."""
    C = mine.q_proj.in_features
    x, cos = torch.randn(2, 6, C, dtype=mine.q_proj.weight.dtype), torch.ones(6, mine.head_dim)
    x[1, 2] = torch.nan
    out = attempt("Attention, NaN in row 1, token 2", mine, x, cos, 0 * cos).isnan().any(-1)
    found = out.nonzero().tolist()
    holds(
        "Attention, NaN in row 1, token 2: tokens 2 to 5 of row 1 must be NaN, none of row 0",
        out[1, 2:].all().item() and not out[0].any().item(),
        f"[row, token] with NaN: {found}",
    )


def check_meta() -> None:
    """It runs on the device of what it is given: here one whose tensors have no values."""
    C, H, K, D = SHAPES[-1]
    config = ModelConfig.from_dict(llama_config(C, H, K, D).to_dict())
    with torch.device("meta"):
        made = attempt("Attention, made on the meta device", Attention, config)
    moved = attempt("Attention", Attention, config).to("meta")
    # Handed over from outside: nothing in it may be made on the default device. 7 tokens it has
    # seen before, on the CPU: what it keeps of them would not do.
    given = [torch.empty(size, device="meta") for size in ((2, 7, C), (7, D), (7, D))]
    for away in (made, moved):
        with OneDevice():
            out = attempt("Attention, x, cos and sin on the meta device", away, *given)
        agree("Attention on the meta device, the device of what it gives", out.device.type, "meta")
