"""What known mistakes make of RoPE, so that a comparison can name them: Days 4 and 6."""

import math
from copy import deepcopy

import torch

from nanoserve.reference import modeling_llama
from nanoserve.signatures import Lookalikes

WHICH = ("cos", "sin")
OTHER_SPEEDS = {
    "without the rescale": {"rope_type": "default"},
    "with factor 8, Llama 3.1's": {"factor": 8.0},
    "of theta 10,000, Llama 2's": {"rope_theta": 1e4},
    "of theta 500,000, Llama 3's": {"rope_theta": 5e5},
}


def other_rotary(
    rotary: modeling_llama.LlamaRotaryEmbedding, **changed
) -> modeling_llama.LlamaRotaryEmbedding:
    """HuggingFace's RoPE with other parameters."""
    config = deepcopy(rotary.config)
    config.rope_parameters = {**config.rope_parameters, **changed}
    return type(rotary)(config)


def speed_slips(rotary: modeling_llama.LlamaRotaryEmbedding) -> Lookalikes:
    """Frequencies (D/2,) of other configs."""

    def speeds(changed: dict):
        return lambda: other_rotary(rotary, **changed).inv_freq

    return {
        "the speeds without the clamp: share outside of 0 to 1": lambda: made(rotary, clamp=False),
        **{f"the speeds {name}": speeds(changed) for name, changed in OTHER_SPEEDS.items()},
    }


def made(
    rotary: modeling_llama.LlamaRotaryEmbedding, clamp: bool = True, flipped: bool = False
) -> torch.Tensor:
    """Frequencies (D/2,), slipped: shares not clamped, or theta**-x for 1 / theta**x."""
    rope, D = rotary.config.rope_parameters, 2 * len(rotary.inv_freq)
    x = torch.arange(0, D, 2, device="cpu", dtype=torch.float32) / D
    w = rope["rope_theta"] ** -x if flipped else 1.0 / rope["rope_theta"] ** x
    if rope["rope_type"] != "llama3":
        return w
    turns = rope["original_max_position_embeddings"] / (2 * math.pi / w)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = (turns - low) / (high - low)
    share = share.clamp(0, 1) if clamp else share
    return (1 - share) * w / rope["factor"] + share * w


def table_slips(
    rotary: modeling_llama.LlamaRotaryEmbedding, positions: torch.Tensor, which: int
) -> Lookalikes:
    """The table's cos (`which` 0) or sin (1), (..., T, D), at other places and speeds."""

    def table(positions=positions, rotary=rotary, which=which) -> torch.Tensor:
        rows = positions.view(-1, positions.shape[-1])
        return rotary(torch.empty(0, dtype=torch.float32), rows)[which].view(*positions.shape, -1)

    def at(changed: dict):
        return lambda: table(rotary=other_rotary(rotary, **changed))

    def flipped() -> torch.Tensor:
        half = positions[..., None].float() * made(rotary, flipped=True)
        return (
            torch.cat([half, half], -1).cos() if which == 0 else torch.cat([half, half], -1).sin()
        )

    def twice() -> torch.Tensor:
        full = table()
        return full[..., : full.shape[-1] // 2].repeat_interleave(2, -1)

    return {
        f"{WHICH[1 - which]}, which is wanted in the other place": lambda: table(which=1 - which),
        "the table one position further": lambda: table(positions + 1),
        "the table whose rows all start at 0": lambda: table(positions - positions[..., :1]),
        "the first row's table in every row": lambda: table(positions[:1].expand_as(positions)),
        "the table with each angle twice in a row, not once in each half": twice,
        "the table from theta**-x, whose last bits are not those of 1 / theta**x": flipped,
        "the table rounded to bf16": lambda: table().bfloat16().float(),
        **{f"the table {name}": at(changed) for name, changed in OTHER_SPEEDS.items()},
    }


def turn_slips(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Lookalikes:
    """x (B, H, T, D), turned wrongly. cos and sin are (T, D) or (B, T, D)."""
    c, s = (t.unsqueeze(-3).to(x.dtype) for t in (cos, sin))

    def halves() -> torch.Tensor:
        first, second = x.chunk(2, -1)
        return torch.cat([-second, first], -1)

    def neighbours() -> torch.Tensor:
        return torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)

    def in_a_row(t: torch.Tensor) -> torch.Tensor:
        return t[..., : t.shape[-1] // 2].repeat_interleave(2, -1)

    return {
        "its own input: it was not turned": lambda: x,
        "a turn the other way: the sign of sin": lambda: x * c - halves() * s,
        "a turn with cos and sin exchanged": lambda: x * s + halves() * c,
        "a turn of neighbours, (0, 1), with the table for halves": lambda: x * c + neighbours() * s,
        "a turn of neighbours, (0, 1), where halves, (0, D/2), are pairs": lambda: (
            x * in_a_row(c) + neighbours() * in_a_row(s)
        ),
        "a turn of halves with the table for neighbours": lambda: (
            x * in_a_row(c) + halves() * in_a_row(s)
        ),
        "a turn without the minus sign before the second half": lambda: (
            x * c + torch.cat([*x.chunk(2, -1)][::-1], -1) * s
        ),
    }
