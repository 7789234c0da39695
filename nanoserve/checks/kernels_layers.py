"""What HuggingFace's layers were given, and gave, for the last token of each text: Day 22."""

from pathlib import Path

import torch

from nanoserve.checks.kernels_small import DEVICE
from nanoserve.comparison import Scoreboard
from nanoserve.config import ModelConfig
from nanoserve.layers import rope_table
from nanoserve.reference import Reference


class LastTokens:
    """A row for each text, where the kernels run, and a pool with a slot for each.

    `places` says which row of `angles` (cos, sin) each has, `slots` where its key goes.
    """

    def __init__(self, board: Scoreboard, path: Path):
        self.board, self.config = board, ModelConfig.from_pretrained(path)
        self.ref = Reference(path, keep_parameters=True)
        tables = rope_table(self.config, self.ref.positions[:, -1])
        half = self.config.head_dim // 2
        self.angles = [table[:, :half].contiguous().to(DEVICE) for table in tables]
        self.places = torch.arange(len(self.angles[0]), device=DEVICE)
        self.slots = self.places.flip(0)

    def given(self, name: str) -> torch.Tensor:
        """What a module was given, (T, C)."""
        return self.last(self.ref.inputs[name])

    def gave(self, name: str) -> torch.Tensor:
        """What it gave, (T, C), or (T, H, D) of q, k and v."""
        return self.last(self.ref.outputs[name])

    def last(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., -1, :].to(DEVICE, copy=True)

    def weight(self, *names: str) -> torch.Tensor:
        """Of one matrix, or of several below each other."""
        kept = [self.ref.parameters[f"{name}.weight"] for name in names]
        return torch.cat(kept).to(DEVICE)

    def pool(self) -> torch.Tensor:
        """Keys and values, (2, slots, K, D), with nothing in them."""
        sizes = len(self.slots), self.config.num_key_value_heads, self.config.head_dim
        return torch.full((2, *sizes), torch.nan, device=DEVICE)

    def hold(self, part: str, name: str, mine: torch.Tensor, theirs: torch.Tensor) -> None:
        self.board.compare(self.ref, part, name, mine.cpu(), theirs.cpu())
