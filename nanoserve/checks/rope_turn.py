"""The rotation of heads against HuggingFace's, and what RoPE may not keep or move: Day 4."""

import torch

from nanoserve.checks.common import BF16, F16, F32, F64, KIND, alike, attempt, holds
from nanoserve.checks.rope_slips import turn_slips
from nanoserve.comparison import Scoreboard
from nanoserve.config import ModelConfig
from nanoserve.layers import apply_rope, rope_table
from nanoserve.reference import modeling_llama

FAR = torch.tensor([0, 1, 7, 140, 4095, 8191, 8192, 8193, 16385, 131071, 1000003])
EXACT = {"rtol": 0.0, "atol": 0.0}  # half precision shows each step that is done otherwise


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
        for dtype in (F32, BF16, F16, F64):
            x = torch.randn(9, T, H, config.head_dim, generator=seeded)
            x = x.to(dtype).transpose(1, 2)  # (B, H, T, D), not in order
            for positions in (FAR[-T:], rows[:, :T]):
                what = f"{name}: apply_rope on {T} tokens in {KIND[dtype]}"
                table = attempt(what, rope_table, config, positions)
                mine = attempt(what, apply_rope, x, *table)
                bar = {} if dtype == F32 else EXACT
                slips = turn_slips(x, *table)
                board.compare(None, "q and k", what, mine, rotated(x, *table), slips, **bar)


@torch.inference_mode()
def check_state(
    board: Scoreboard,
    name: str,
    config: ModelConfig,
    rotary: modeling_llama.LlamaRotaryEmbedding,
) -> None:
    """Nothing is kept from call to call: positions, heads and earlier results are their own."""
    positions = torch.arange(5)
    x = torch.randn(1, 2, 5, config.head_dim, generator=torch.Generator().manual_seed(5))
    tables_before = attempt(name, rope_table, config, positions)
    turned_before = attempt(name, apply_rope, x, *tables_before)
    before = [t.clone() for t in (*tables_before, turned_before)]
    positions += 1  # as a loop does that makes one token after another
    x += 1
    what = f"{name}: rope_table after positions += 1"
    now = attempt(what, rope_table, config, positions)
    for mine, theirs, last in zip(now, rotary(x, positions[None]), before, strict=False):
        slips = {"the table of the last call": last}
        board.compare(None, "cos, sin", what, mine, theirs[0], slips)
    what = f"{name}: apply_rope after x += 1"
    turned = attempt(what, apply_rope, x, *now)
    board.compare(None, "q and k", what, turned, rotated(x, *now), {"the last result": before[2]})
    same = all(map(alike, before, (*tables_before, turned_before)))
    holds("A table and turned heads must stay as they are when others are made", same)


@torch.inference_mode()
def check_not_numbers(config: ModelConfig) -> None:
    """NaN and infinity come out where HuggingFace has them, and in no other pair."""
    table = rope_table(config, FAR)
    for dtype in (F32, BF16, F16, F64):
        for what in (torch.nan, torch.inf):
            x = torch.ones(1, 2, len(FAR), config.head_dim, dtype=dtype)
            x[0, 1, 3, 0] = what
            same = alike(attempt(f"heads with {what}", apply_rope, x, *table), rotated(x, *table))
            holds(f"apply_rope of heads with {what}, in {KIND[dtype]}, must be HuggingFace's", same)


def check_device(config: ModelConfig) -> None:
    """A table is made where its positions are, and heads are turned where they are."""
    table = attempt("positions on another device (meta)", rope_table, config, FAR.to("meta"))
    x = torch.empty(1, 2, len(FAR), config.head_dim, device="meta")
    for out in (*table, attempt("heads on another device (meta)", apply_rope, x, *table)):
        holds("The result must be on the input's device", out.is_meta, f"it is on {out.device}")


def check_gradient(board: Scoreboard) -> None:
    """Of apply_rope, by its input."""
    seeded = torch.Generator().manual_seed(2)
    x = torch.randn(2, 3, 5, 12, generator=seeded, requires_grad=True)
    angles = torch.randn(5, 6, generator=seeded).repeat(1, 2)  # as rope_table has them
    found = []
    for turn in (apply_rope, rotated):
        loss = (
            attempt("apply_rope on heads with a gradient", turn, x, angles.cos(), angles.sin())
            .square()
            .sum()
        )
        found.append(attempt("gradient of apply_rope by x", torch.autograd.grad, loss, x)[0])
    board.compare(None, "RoPE, gradients", "of q", *found)
