"""The workloads: which ids are asked, and how many are wanted. Seeded, so that all see the same."""

import random
from dataclasses import dataclass

TOKENS = 10_000  # the ids of nano-vllm's prompts are drawn from 0 to here


@dataclass(frozen=True)
class Turn:
    """Ids that follow what was said so far, and how many the answer has, exactly."""

    ids: tuple[int, ...]
    new: int


Conversation = tuple[Turn, ...]


def nano_vllm(requests: int, seed: int, longest: int) -> list[Conversation]:
    """The workload of nano-vllm's bench.py: prompts and answers of 100 to 1,024 ids.

    All prompts are drawn first and all lengths of answers then, from Python's `random`, as there;
    `requests` 256, `seed` 0 and `longest` 1,024 give its very ids. Fewer requests are the first
    ones of these. Source: https://github.com/GeeeekExplorer/nano-vllm, bench.py (MIT).
    """
    drawn, least = random.Random(seed), min(100, longest)
    count = max(256, requests)
    prompts = [
        tuple(drawn.randint(0, TOKENS) for _ in range(drawn.randint(least, longest)))
        for _ in range(count)
    ]
    asked = [(Turn(ids, drawn.randint(least, longest)),) for ids in prompts]
    return asked[:requests]


def chat(requests: int, seed: int, longest: int) -> list[Conversation]:
    """Conversations of eight turns that begin with the same `longest` // 2 ids.

    A message has a few ids up to a sixteenth of `longest`, and so has an answer: what grows is
    what was said before. `requests` is how many messages there are in all.
    """
    drawn, turns = random.Random(seed), 8
    most = max(4, longest // 16)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(drawn.randint(0, TOKENS) for _ in range(count))

    system, asked = ids(longest // 2), []
    for first in range(0, requests, turns):
        count = min(turns, requests - first)
        said = [Turn(ids(drawn.randint(4, most)), drawn.randint(4, most)) for _ in range(count)]
        asked.append((Turn(system + said[0].ids, said[0].new), *said[1:]))
    return asked


WORKLOADS = {"nano-vllm": nano_vllm, "chat": chat}


def workload(
    name: str, requests: int, seed: int, longest: int, vocabulary: int
) -> list[Conversation]:
    """The conversations of a workload. ValueError for what it cannot be."""
    for field, value, least in (("requests", requests, 1), ("longest", longest, 8)):
        if value < least:
            raise ValueError(f"{field} must be {least} or more, got {value}")
    if vocabulary <= TOKENS:
        raise ValueError(
            f"the model knows {vocabulary} tokens, and the workloads' ids go up to {TOKENS}: "
            "measure it with your own prompts through LLM.generate"
        )
    return WORKLOADS[name](requests, seed, longest)
