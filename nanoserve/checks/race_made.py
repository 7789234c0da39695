"""A made model as both have it, four short chats, and what HuggingFace writes in them: Day 26."""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from nanoserve.bench.huggingface import their_model
from nanoserve.bench.workloads import Conversation, Turn
from nanoserve.checks.common import BF16, agree, attempt
from nanoserve.checks.generating import their_greedy
from nanoserve.checks.model import VARIANTS, VOCAB, make
from nanoserve.checks.model_loading import load
from nanoserve.comparison import MADE_UP
from nanoserve.model import Llama
from nanoserve.reference import transformers

# Of each turn: its own ids, and those of its answer. All begin with the same BEGIN ids.
SIZES, BEGIN = (
    (((5, 3), (2, 6), (4, 1)), ((9, 5), (1, 2)), ((3, 1), (7, 4), (2, 3)), ((12, 7),)),
    20,
)


def made_talks() -> list[Conversation]:
    """Four conversations with turns and answers of unlike lengths."""
    drawn = random.Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(drawn.randrange(VOCAB) for _ in range(count))

    begin = ids(BEGIN)
    talks = [[Turn(ids(own), new) for own, new in talk] for talk in SIZES]
    return [(Turn(begin + talk[0].ids, talk[0].new), *talk[1:]) for talk in talks]


def made_models() -> tuple[nn.Module, Llama]:
    """A made model as HuggingFace has it, and as we do."""
    theirs = make(VARIANTS[0] | {"max_position_embeddings": 128}).eval()
    theirs.generation_config = transformers.GenerationConfig()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(Path(folder) / MADE_UP)
        return theirs, load(Path(folder) / MADE_UP)


def by_hand(theirs: nn.Module, talks: Sequence[Conversation]) -> list[list[tuple]]:
    """Each turn's ids and scores, by HuggingFace's generate, alone and without a cache."""
    found = []
    for talk in talks:
        ids, turns = [], []
        for turn in talk:
            ids += turn.ids
            turns.append(their_greedy(theirs, ids, turn.new, ()))
            ids += turns[-1][0]
        found.append(turns)
    return found


def check_their_model(theirs: nn.Module) -> None:
    """It is made where it is asked for, with the numbers that are asked for."""
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        found = attempt("their_model", their_model, folder, "meta", BF16)
    agree("their_model's dtype, device", (found.dtype, found.device.type), (BF16, "meta"))
