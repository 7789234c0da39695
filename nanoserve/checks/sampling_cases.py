"""Parameters, histories and awkward scores for the checks of sampling: Day 9."""

import random
from itertools import product

import torch

from nanoserve.sampling import History, SamplingParams

# What HuggingFace's generate is asked for, a set for each of its prompts.
SETTINGS = (
    {"temperature": 0.7},
    {"temperature": 1.6, "top_k": 40},
    {"top_p": 0.9},
    {"temperature": 0.6, "top_p": 0.95, "min_p": 0.02},
    {"min_p": 0.1, "repetition_penalty": 1.3},
    {"temperature": 0.8, "top_k": 12, "top_p": 0.8, "min_p": 0.05, "min_tokens": 2},
    {"temperature": 2.5, "top_k": 5, "top_p": 0.5, "repetition_penalty": 0.7, "min_tokens": 3},
    {"temperature": 0.3, "top_p": 0.99, "repetition_penalty": 1.05, "min_tokens": 1},
)
FIELDS = {
    "temperature": (0.0, 1e-6, 0.02, 0.7, 1.0, 1.8),
    "top_k": (0, -1, 1, 5, 10**6),
    "top_p": (1.0, 0.9, 0.5, 1e-9),
    "min_p": (0.0, 0.05, 0.6, 1.0),
    "repetition_penalty": (1.0, 1.3, 0.7),
    "presence_penalty": (0.0, 1.5, -0.5),
    "frequency_penalty": (0.0, 0.75, -2.0),
    "min_tokens": (0, 3, 4),
    "stop_token_ids": ((), (5,), (8, 3)),
    "ignore_eos": (False, True),
}


def awkward_rows(size: int = 97) -> torch.Tensor:
    """Rows of scores (N, size) of every awkward kind."""
    seeded = torch.Generator().manual_seed(0)
    plain = torch.randn(12, size, generator=seeded)
    one = torch.zeros(size)
    one[11] = 11.5  # 0.999 of the probability
    holes = plain[0].masked_fill(plain[0] < 0.3, -torch.inf)
    single = torch.full((size,), -torch.inf).index_fill(0, torch.tensor([40, 41]), 2.0)
    rows = [plain[1] * 3, plain[2] * 8, (plain[3] * 2).round(), one, torch.zeros(size), holes]
    rows += [single, plain[4] * 1e4, plain[5] - 30, plain[6].bfloat16().float() * 4]
    rows += [plain[7].round().abs(), torch.linspace(0, 1e-5, size)]
    return torch.stack(rows)


def crossed(rows: int, seed: int = 0) -> list[SamplingParams]:
    """Parameters with all fields crossed: a seeded draw from their product, one for each row."""
    cases = list(product(*FIELDS.values()))
    drawn = random.Random(seed).sample(cases, rows)
    return [SamplingParams(**dict(zip(FIELDS, case, strict=True))) for case in drawn]


def histories(rows: int, size: int) -> list[History]:
    """A prompt and an output for each row: some empty, with repeats, up to five ids of output."""
    seeded = random.Random(1)

    def some(n: int) -> list[int]:
        return [seeded.choice((seeded.randrange(size), 3, 5, 8)) for _ in range(n)]

    return [(some(seeded.randrange(1, 9)), some(i % 6)) for i in range(rows)]
