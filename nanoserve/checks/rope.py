"""RoPE against HuggingFace's on far positions, long prompts and made-up scalings: Day 4."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from nanoserve.checks.common import BF16, F32, KIND, attempt, holds, must_raise, stack
from nanoserve.checks.rope_slips import speed_slips, table_slips
from nanoserve.checks.rope_turn import (
    FAR,
    check_device,
    check_gradient,
    check_not_numbers,
    check_state,
    check_turn,
    rotated,
)
from nanoserve.comparison import Scoreboard
from nanoserve.config import ModelConfig
from nanoserve.layers import apply_rope, rope_inverse_frequencies, rope_table
from nanoserve.loader import load_weights
from nanoserve.reference import Reference, modeling_llama, transformers
from nanoserve.signatures import Lookalikes

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SCALINGS = {
    "factor 3": LLAMA3 | {"factor": 3.0},
    "low_freq_factor 2.5": LLAMA3 | {"low_freq_factor": 2.5},
    "high_freq_factor 1.5": LLAMA3 | {"high_freq_factor": 1.5},
    "trained on 300": LLAMA3 | {"original_max_position_embeddings": 300},
    "not scaled": {"rope_type": "default"},
    "Llama 3.1": LLAMA3,
}
SIZES = ((32, 1e4), (128, 5e5), (6, 77.0), (2, 1e6))  # head_dim and theta
LONG = 33_001  # tokens


def check_rope(board: Scoreboard) -> None:
    """Scalings and head sizes that no checkpoint has; state; bad positions; gradients."""
    for kind, scaling in SCALINGS.items():
        for D, theta in SIZES:
            theirs = transformers.LlamaConfig(
                head_dim=D,
                rope_parameters=scaling | {"rope_theta": theta},
                max_position_embeddings=131072,
            )
            config = ModelConfig.from_dict(theirs.to_dict())
            rotary = modeling_llama.LlamaRotaryEmbedding(theirs)
            name = f"{kind}, head_dim {D}"
            check_tables(board, None, name, config, rotary)
            if scaling is LLAMA3:
                check_turn(board, name, config)
                check_state(board, name, config, rotary)
    check_refused(config)
    check_not_numbers(config)
    check_device(config)
    check_gradient(board)


def check_far(board: Scoreboard, ref: Reference) -> None:
    """A checkpoint's own scaling: positions up to the millionth, and 33,001 tokens at once."""
    config = ModelConfig.from_pretrained(ref.path)
    check_tables(board, ref, "far", config, ref.rotary)
    check_long(board, ref, config)


def heads_before_rope(
    ref: Reference, config: ModelConfig, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every q and k of a checkpoint before RoPE, from HuggingFace's own input: (B, H, T, D)."""
    C, D = config.hidden_size, config.head_dim
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}

    def projections() -> nn.ModuleDict:
        return nn.ModuleDict({name: nn.Linear(C, n * D, bias=False) for name, n in heads.items()})

    model = stack(config, attn=projections).to(dtype)
    load_weights(model, ref.path)
    for i, block in enumerate(model.blocks):
        name = f"blocks.{i}.attn"
        for what in "qk":
            flat = block.attn[f"{what}_proj"](ref.inputs[name])  # (B, T, H * D)
            yield f"{name}.{what}", flat.unflatten(-1, (-1, D)).transpose(1, 2)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What a loader sets while it makes a model in bf16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def many_positions() -> Iterator[torch.Tensor]:
    """Positions of one row and of several, near and far, in several kinds of integers."""
    yield FAR
    yield FAR.int()
    yield FAR[:6].short()
    yield FAR[:4].to(torch.uint8)
    yield FAR - 7  # a row that was padded on the left
    yield FAR[:7]
    yield FAR[-1:]  # one token, as in decoding
    yield torch.stack([FAR, FAR + 77, FAR.flip(0)])  # each row its own
    yield FAR[:, None].int()
    yield torch.arange(0, 131072, 37)


def tables(
    name: str,
    config: ModelConfig,
    rotary: modeling_llama.LlamaRotaryEmbedding,
    positions: torch.Tensor,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, Lookalikes]]:
    """Our cos, HuggingFace's and what mistakes would give; then the same of sin."""
    ours = attempt(name, rope_table, config, positions)
    # HuggingFace wants rows of positions, and a tensor whose dtype the table is to have.
    wanted = rotary(torch.empty(0, dtype=F32), positions.view(-1, positions.shape[-1]))
    for which, (mine, theirs) in enumerate(zip(ours, wanted, strict=True)):
        slips = table_slips(rotary, positions, which)
        yield mine, theirs.view(*positions.shape, -1), slips


@torch.inference_mode()
def check_tables(
    board: Scoreboard,
    ref: Reference | None,
    name: str,
    config: ModelConfig,
    rotary: modeling_llama.LlamaRotaryEmbedding,
) -> None:
    """Frequencies, cos and sin of one config, in float32 whatever the default dtype."""
    for dtype in (F32, BF16, F32):
        with default_dtype(dtype):
            frequencies = attempt(name, rope_inverse_frequencies, config)
            far = list(tables(name, config, rotary, FAR))
        what = f"{name}, where torch's default dtype is {KIND[dtype]}"
        written = "the zeros that the last caller wrote into its own result"
        slips = {**speed_slips(rotary), written: torch.zeros_like(frequencies)}
        board.compare(ref, "frequencies", what, frequencies, rotary.inv_freq, slips)
        attempt(name, frequencies.zero_)  # the caller's own: the next ones are new
        for mine, theirs, slips in far:
            slips = {**slips, written: torch.zeros_like(mine)}
            board.compare(ref, "cos, sin", what, mine, theirs, slips)
            attempt(name, mine.zero_)
    for positions in many_positions():
        what = f"{name}: rope_table on positions {[*positions.shape]} in {positions.dtype}"
        # The same shape twice, with other positions: nothing may be left over.
        for shifted in (positions, positions + 3):
            for mine, theirs, slips in tables(what, config, rotary, shifted):
                board.compare(ref, "cos, sin", what, mine, theirs, slips)


@torch.inference_mode()
def check_long(board: Scoreboard, ref: Reference, config: ModelConfig) -> None:
    """A long prompt at once."""
    name, positions = f"RoPE on {LONG:,} tokens", torch.arange(LONG)
    table = attempt(name, rope_table, config, positions)
    for mine, theirs in zip(table, ref.rope(positions[None]), strict=True):
        board.compare(ref, "cos, sin", name, mine, theirs[0])
    seeded = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, LONG, config.head_dim, generator=seeded)
    few = attempt("RoPE on 9 tokens", apply_rope, x[:, :, :9], *(t[:9] for t in table))
    # Asked first: spread over a wrong dimension, the long table would take all memory there is.
    said = "apply_rope must give the shape of its heads, with a table (T, D) too"
    found = list(getattr(few, "shape", ()))
    holds(said, found == [1, 1, 9, config.head_dim], f"the shape is {found}")
    mine = attempt(name, apply_rope, x, *table)
    board.compare(ref, "q and k, fp32", name, mine, rotated(x, *table))


def check_refused(config: ModelConfig) -> None:
    """Positions must be whole numbers."""
    for wrong in (FAR.float(), FAR.bfloat16(), FAR.double(), FAR.bool(), FAR.to(torch.complex64)):
        what = f"rope_table with positions in {wrong.dtype}, which are no whole numbers"
        must_raise(TypeError, what, rope_table, config, wrong)
