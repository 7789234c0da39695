"""RoPE against HuggingFace's on far positions, long prompts and made-up scalings: Day 4."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from nanoserve.checks.common import BF16, F16, F32, KIND, attempt, stack
from nanoserve.comparison import Scoreboard
from nanoserve.config import ModelConfig
from nanoserve.layers import apply_rope, rope_inverse_frequencies, rope_table
from nanoserve.loader import load_weights
from nanoserve.reference import Reference, modeling_llama, transformers

FAR = torch.tensor([0, 1, 7, 140, 4095, 8191, 8192, 8193, 16385, 131071, 1000003])

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


def check_rope(board: Scoreboard) -> None:
    """Scalings and head sizes that no checkpoint has; bad positions; gradients."""
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
            check_turn(board, name, config)
    check_refused(config)
    check_gradient(board)


def check_far(board: Scoreboard, ref: Reference) -> None:
    """A checkpoint's own scaling: positions up to the millionth, and 8,193 tokens at once."""
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
    """Positions of one row and of several, near and far, in int64 and int32."""
    yield FAR
    yield FAR.int()
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
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Our cos and HuggingFace's, then our sin and HuggingFace's."""
    ours = attempt(name, rope_table, config, positions)
    # HuggingFace wants rows of positions, and a tensor whose dtype the table is to have.
    wanted = rotary(torch.empty(0, dtype=F32), positions.view(-1, positions.shape[-1]))
    for mine, theirs in zip(ours, wanted, strict=True):
        yield mine, theirs.view(*positions.shape, -1)


@torch.inference_mode()
def check_tables(
    board: Scoreboard,
    ref: Reference | None,
    name: str,
    config: ModelConfig,
    rotary: modeling_llama.LlamaRotaryEmbedding,
) -> None:
    """Frequencies, cos and sin of one config, in float32 whatever the default dtype."""
    for dtype in (F32, BF16):
        with default_dtype(dtype):
            frequencies = attempt(name, rope_inverse_frequencies, config)
            far = list(tables(name, config, rotary, FAR))
        board.compare(ref, "frequencies", name, frequencies, rotary.inv_freq)
        for mine, theirs in far:
            board.compare(ref, "cos, sin", name, mine, theirs)
            attempt(name, mine.zero_)  # the caller's own: the next table is a new one
    for positions in many_positions():
        what = f"{name}, positions {[*positions.shape]}"
        # The same shape twice, with other positions: nothing may be left over.
        for shifted in (positions, positions + 3):
            for mine, theirs in tables(what, config, rotary, shifted):
                board.compare(ref, "cos, sin", what, mine, theirs)


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """HuggingFace's rotation, which wants a table with rows, in the dtype of x."""
    cos, sin = (t.view(-1, *t.shape[-2:]).to(x.dtype) for t in (cos, sin))
    return modeling_llama.apply_rotary_pos_emb(x, x, cos, sin)[0]


@torch.inference_mode()
def check_turn(board: Scoreboard, name: str, config: ModelConfig) -> None:
    """apply_rope on random heads: odd and even T, one table for all rows or one for each."""
    seeded = torch.Generator().manual_seed(config.head_dim)
    rows = FAR + 5 * torch.arange(9)[:, None]
    for T, H in ((1, 33), (2, 2), (7, 3), (10, 2)):
        for dtype in (F32, BF16, F16):
            x = torch.randn(9, T, H, config.head_dim, generator=seeded)
            x = x.to(dtype).transpose(1, 2)  # (B, H, T, D), not in order
            for positions in (FAR[-T:], rows[:, :T]):
                what = f"{name}, {T} tokens, {KIND[dtype]}"
                table = attempt(what, rope_table, config, positions)
                mine = attempt(what, apply_rope, x, *table)
                board.compare(None, "q and k", what, mine, rotated(x, *table))


@torch.inference_mode()
def check_long(board: Scoreboard, ref: Reference, config: ModelConfig) -> None:
    """A prompt of 8,193 tokens at once."""
    name, positions = "8,193 tokens", torch.arange(8193)
    table = attempt(name, rope_table, config, positions)
    for mine, theirs in zip(table, ref.rope(positions[None]), strict=True):
        board.compare(ref, "cos, sin", name, mine, theirs[0])
    seeded = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 8193, config.head_dim, generator=seeded)
    mine = attempt(name, apply_rope, x, *table)
    board.compare(ref, "q and k, fp32", name, mine, rotated(x, *table))


def check_refused(config: ModelConfig) -> None:
    """Positions must be whole numbers."""
    for wrong in (FAR.float(), FAR.bool()):
        try:
            rope_table(config, wrong)
        except TypeError:
            continue
        except Exception as error:
            raise AssertionError(f"positions in {wrong.dtype}: {error!r}") from error
        raise AssertionError(f"rope_table takes {wrong.dtype} for positions")


def check_gradient(board: Scoreboard) -> None:
    """Of apply_rope, by its input."""
    seeded = torch.Generator().manual_seed(2)
    x = torch.randn(2, 3, 5, 12, generator=seeded, requires_grad=True)
    angles = torch.randn(5, 6, generator=seeded).repeat(1, 2)  # as rope_table has them
    found = []
    for turn in (apply_rope, rotated):
        loss = attempt("heads with a gradient", turn, x, angles.cos(), angles.sin()).square().sum()
        found.append(attempt("gradient", torch.autograd.grad, loss, x)[0])
    board.compare(None, "RoPE, gradients", "of q", *found)
