"""The runner of a GPU in an engine, with graphs or what stands for them: Day 24."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from nanoserve.checks.common import holds
from nanoserve.checks.kernels_ahead import Asked, Told, ahead, asked, beside, check_told, play
from nanoserve.checks.kernels_company import MODES
from nanoserve.checks.kernels_plain import plain_kernels
from nanoserve.kernels.runner import GPURunner, plain
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams

RULES = (
    {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.1}, {"min_tokens": 1}, {"logprobs": 0},
    {"repetition_penalty": 1.1}, {"presence_penalty": 0.1}, {"frequency_penalty": -0.1},
)  # fmt: skip
# One is set back and let in again within a step, with as many blocks, and other ones.
AT_ONCE = {"num_blocks": 7, "rows": 4, "budget": 30}


def check_runner(model: Llama) -> None:
    """The runner of a GPU, with graphs: token for token the plain engine, in every mode.

    Where there is no GPU, plain torch is in the kernels' place, and graphs are on paper.
    """
    simple = SamplingParams(temperature=0.5, seed=1, max_tokens=3, stop_token_ids=(1,))
    holds(f"{simple} must be plain", plain(simple))
    for rule in RULES:
        holds(f"{rule} must not be plain", not plain(SamplingParams(max_tokens=2, **rule)))
    there = model.embed.weight.is_cuda
    with nullcontext() if there else plain_kernels():
        for rules in (False, True):
            mixes = [asked(seed, 8, special=rules) for seed in (3, 4, 5)]
            told = [play(beside(model), mix) for mix in mixes]  # the same in every mode
            for number, (mode, settings) in enumerate(MODES.items()):
                mode += ", with rules" * rules
                check_mode(model, mode, settings, mixes[number % 3], told[number % 3])
        requests = asked(16, 8, special=False)
        wanted = play(beside(model), requests)
        check_mode(model, "let in again at once", AT_ONCE, requests, wanted)
        with patch("nanoserve.kernels.reads.SIZES", (2, 4)):
            check_mode(model, "in steps longer than any that is recorded", {}, requests, wanted)


def check_mode(
    model: Llama, mode: str, settings: dict, requests: Sequence[Asked], wanted: Told
) -> None:
    """Told as Day 16's engine tells it."""
    engine = ahead(model, GPURunner, **settings)
    if not model.embed.weight.is_cuda:
        engine.runner.graphs.record(Shared())
        engine.runner.reads.record(Shared())
    mine = play(engine, requests)
    engine.add_request("last", [5, 6], SamplingParams(temperature=0, max_tokens=2))
    play(engine, [])
    holds(f"{mode}: whoever comes after the rules must be planned ahead", engine.runner.can_lag)
    check_told(f"GPURunner, {mode}", mine, wanted)


class Shared:
    """Graphs on paper, all of which leave what they find in one memory, as a card's do."""

    def __init__(self):
        self.memory: tuple[torch.Tensor, ...] = ()

    def __call__(self, step: Callable, memory: Any) -> tuple:
        """A graph, and where its replays leave what they find; the first one is the largest."""
        found = step()
        holds("a step gives two results", isinstance(found, tuple) and len(found) == 2)
        self.memory = self.memory or tuple(x.clone() for x in found)
        found = tuple(old[: len(x)] for old, x in zip(self.memory, found, strict=True))

        def replay() -> None:
            for old, new in zip(found, step(), strict=True):
                old.copy_(new)

        return SimpleNamespace(replay=replay, pool=lambda: (0, 0)), found
