"""The Attention module against HuggingFace's LlamaAttention, made up and by layer: Day 6.

In shapes: B batch, T time, C hidden_size, D head_dim.
"""

from itertools import product

import torch
from torch import nn

from nanoserve.checks.attention import BARS, causal_mask, theirs_on
from nanoserve.checks.common import BF16, F32, KIND, agree, attempt
from nanoserve.comparison import Scoreboard
from nanoserve.config import ModelConfig
from nanoserve.layers import Attention, causal_attention
from nanoserve.reference import Reference, modeling_llama, transformers

SHAPES = ((24, 6, 2, 10), (32, 4, 4, 8), (20, 5, 1, 6), (40, 8, 4, 2))  # C, H, K, D
SIZES = ((1, 1), (2, 1), (2, 7), (3, 24), (1, 33))  # B, T
# Products of few rows round otherwise, where HuggingFace has many.
LOOSE = {"rtol": 1e-4, "atol": 1e-4}


@torch.no_grad()
def check_module(board: Scoreboard) -> None:
    """Widths, batches and lengths in fp32 and bf16; gradients; a module made elsewhere."""
    for shape, dtype in product(SHAPES, (F32, BF16)):
        mine, theirs = pair(llama_config(*shape), dtype)
        for B, T in SIZES:
            check_outputs(board, mine, theirs, B, T)
            if dtype == F32:
                check_gradients(board, mine, theirs, B, T)
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
    drawn = not torch.equal(state, torch.get_rng_state())
    agree("random weights, only to be overwritten", drawn, False)
    # The same names, the same shapes and no bias.
    attempt("parameters", mine.load_state_dict, theirs.state_dict())
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


def check_meta() -> None:
    """A module is made on the device that is asked for, and runs there."""
    C, H, K, D = SHAPES[-1]
    config = ModelConfig.from_dict(llama_config(C, H, K, D).to_dict())
    with torch.device("meta"):
        away = attempt("made elsewhere", Attention, config)
        given = torch.empty(2, 3, C), torch.empty(3, D), torch.empty(3, D)
        out = attempt("run elsewhere", away, *given)
    agree("device", out.device.type, "meta")


@torch.inference_mode()
def check_layer(
    board: Scoreboard,
    ref: Reference,
    name: str,
    attn: nn.Module,
    cos: torch.Tensor,
    sin: torch.Tensor,
) -> None:
    """What a cache relies on, in one layer: the seam, last rows alone, pieces, no future."""
    given = ref.inputs[name], cos, sin  # (B, T, C), twice (B, T, D)
    check_seam(board, ref, name, attn, *given)
    check_last_rows(board, ref, name)
    check_pieces(board, ref, name, attn, *given)
    check_late(name, attn, *given)


def check_seam(
    board: Scoreboard, ref: Reference, name: str, attn: nn.Module, *given: torch.Tensor
) -> None:
    """Without attend, with it by place and by name: called once, and its mix is what counts."""
    calls = []

    def double(*qkv: torch.Tensor) -> torch.Tensor:
        calls.append(qkv)
        return 2 * causal_attention(*qkv)

    outputs = (
        attempt(name, attn, *given),
        attempt(name, attn, *given, double) / 2,
        attempt(name, attn, *given, attend=double) / 2,
    )
    for out in outputs:
        dtype = given[0].dtype
        board.compare(ref, f"output, {KIND[dtype]}", name, out, **BARS[dtype])
    agree(f"{name}, calls of attend", len(calls), 2)


def check_last_rows(board: Scoreboard, ref: Reference, name: str) -> None:
    """The last queries alone, with all keys, as a cache has them."""
    q, k, v = (ref.outputs[f"{name}.{what}"] for what in "qkv")
    whole, part = theirs_on(q, k, v)[0], f"last rows, {KIND[q.dtype]}"
    for T in (1, 2, 7):
        last = attempt(name, causal_attention, q[:, :, -T:], k, v)
        board.compare(ref, part, name, last, whole[:, :, -T:], **BARS[q.dtype])


def check_pieces(
    board: Scoreboard, ref: Reference, name: str, attn: nn.Module, *given: torch.Tensor
) -> None:
    """The prompt in three pieces, with a small cache for attend."""
    past = []

    def cached(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        past.append((k, v))
        keys, values = (torch.cat(pieces, 2) for pieces in zip(*past, strict=True))
        return causal_attention(q, keys, values)

    outputs = []
    for piece in (slice(0, 5), slice(5, 6), slice(6, None)):
        rows = (t[:, piece] for t in given)
        outputs.append(attempt(name, attn, *rows, cached))
    dtype = given[0].dtype
    bar = LOOSE if dtype == F32 else BARS[dtype]
    board.compare(ref, f"in pieces, {KIND[dtype]}", name, torch.cat(outputs, 1), **bar)


def check_late(name: str, attn: nn.Module, x: torch.Tensor, *tables: torch.Tensor) -> None:
    """Another last token moves the last row, and no bit of those before it."""
    late = x.clone()
    late[:, -1] += 10
    before = attempt(name, attn, x, *tables)
    after = attempt(name, attn, late, *tables)
    moved = (after != before).any(-1).any(0).tolist()
    agree(f"{name}, rows that move", moved, [False] * (x.shape[1] - 1) + [True])
