"""The runner of a GPU in an engine, with graphs or what stands for them: Day 24."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch

from nanoserve.checks.kernels_ahead import ahead, asked, beside, check_told, play
from nanoserve.checks.kernels_company import MODES
from nanoserve.checks.kernels_plain import plain_kernels
from nanoserve.kernels.runner import GPURunner
from nanoserve.model import Llama


def check_runner(model: Llama) -> None:
    """The runner of a GPU, with graphs: token for token the plain engine, in every mode.

    Where there is no GPU, plain torch is in the kernels' place, and graphs are on paper.
    """
    there = model.embed.weight.is_cuda
    with nullcontext() if there else plain_kernels():
        for seed, (mode, settings) in enumerate(MODES.items()):
            for special in (False, True):
                what = f"GPURunner, {mode}" + ", with rules" * special
                requests = asked(seed + 3, 8, special)
                engine = ahead(model, GPURunner, **settings)
                if not there:
                    engine.runner.graphs.record(Shared(model.config.vocab_size))
                mine = play(engine, requests)
                check_told(what, mine, play(beside(model, **settings), requests))


class Shared:
    """Graphs on paper, all of which leave what they find in one memory, as a card's do."""

    def __init__(self, vocab: int):
        self.scores, self.ids = torch.zeros(9, vocab), torch.zeros(9, dtype=torch.int64)

    def __call__(self, step: Callable, memory: Any) -> tuple:
        """A graph, and where its replays leave what they find."""
        B = len(step()[1])
        found = self.scores[:B], self.ids[:B]

        def replay() -> None:
            for old, new in zip(found, step(), strict=True):
                old.copy_(new)

        return SimpleNamespace(replay=replay, pool=lambda: (0, 0)), found
