"""The edges of greedy generation: the context's end, ties, stop ids in files, refusals: Day 8."""

import json
from pathlib import Path

import numpy as np
import torch

from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.checks.common import agree, attempt, must_raise, tells
from nanoserve.checks.model import VOCAB, tokens
from nanoserve.generate import greedy, stop_ids
from nanoserve.model import Llama

CONTEXT = 65  # of the made models; one more than RoPE was stretched from


def check_context(model: Llama, prompt: list[int], wanted: list[int]) -> None:
    """The context may be filled to its last place, by four `wanted` ids, and no further."""
    agree("new ids that fill the context", attempt("greedy", greedy, model, prompt, 4), wanted)
    must_raise(ValueError, "five ids where four fit", greedy, model, prompt, 5)


def check_refusals(model: Llama) -> None:
    """What is refused, before the model is run; the message names it."""
    runs = []
    hook = model.register_forward_hook(lambda *_: runs.append(1))
    for what, prompt, most, words in (
        ("an empty prompt", [], 1, ["empty"]),
        ("an id past the vocabulary", [1, VOCAB], 1, ["1", str(VOCAB), "vocabulary"]),
        ("an unknown id, not the last", [VOCAB, 1], 1, ["0", str(VOCAB)]),
        ("a negative id", [3, 1, -1], 1, ["2", "-1"]),
        ("an id that is no int", [1, 1.5], 1, ["1.5"]),
        ("an id that is a bool", [True], 1, ["True"]),
        ("max_tokens 0", [1], 0, ["max_tokens", "0"]),
        ("max_tokens below 0", [1], -1, ["max_tokens", "-1"]),
        ("max_tokens 1.0", [1], 1.0, ["max_tokens", "1.0"]),
        ("max_tokens True", [1], True, ["max_tokens", "True"]),
        ("a text past the context", [1] * 30, 36, ["66", "65"]),
    ):
        said = must_raise(ValueError, what, greedy, model, prompt, most)
        tells(what, said, words)
    hook.remove()
    mine = attempt("greedy from numpy's ints", greedy, model, list(np.array([1, 2])), 1)
    agree("ids from numpy's ints", mine, greedy(model, [1, 2], 1))
    agree("runs of the model for what is refused", runs, [])


def check_ties(model: Llama) -> None:
    """Of two equal best scores the lower id is taken; of two that are nearly equal, the best."""
    prompt, head = tokens(1, 5)[0].tolist(), model.logits
    for low, high, more in ((0, VOCAB - 1, 0), (7, 8, 0), (30, 59, 0), (30, 59, 1e-5)):

        def tied(x: torch.Tensor, pair=(low, high), more: float = more) -> torch.Tensor:
            scores = head(x)
            scores = scores.index_fill(-1, torch.tensor(pair), scores.max().item() + 1)
            scores[..., pair[1]] += more
            return scores

        model.logits = tied
        mine = attempt("greedy with a tie", greedy, model, prompt, 2)
        del model.logits
        what = "tie for the best" if not more else f"lead, the second of them by {more}"
        agree(f"ids where {low} and {high} {what}", mine, [high if more else low] * 2)


def check_stop_files(path: Path) -> None:
    """Stop ids from generation_config.json, else from config.json; one, several, or none."""
    config, other = path / "config.json", path / "generation_config.json"
    text = config.read_text("utf-8")
    for first, second, wanted in (
        (7, None, (7,)),
        ([7, 9, 0], None, (7, 9, 0)),
        (7, {"eos_token_id": 9}, (9,)),
        ([7, 5], {"eos_token_id": [9, 7, 0]}, (9, 7, 0)),
        ([7, 9], {"bos_token_id": 1}, (7, 9)),
        (7, {"eos_token_id": None}, (7,)),
        (7, {"eos_token_id": 0}, (0,)),
        (None, {}, ()),
        (-1, None, ()),
        (7, {"eos_token_id": [9, -1]}, (9,)),
        (7, {"eos_token_id": "9"}, None),
        (7, {"eos_token_id": 2.0}, None),
        (7, {"eos_token_id": {}}, None),
        (7, {"eos_token_id": [9, True]}, None),
        (7, [], None),
    ):
        config.write_text(json.dumps(json.loads(text) | {"eos_token_id": first}), "utf-8")
        other.unlink(missing_ok=True)
        if second is not None:
            other.write_text(json.dumps(second), "utf-8")
        what = f"stop ids where config.json says {first} and generation_config.json {second}"
        if wanted is None:
            must_raise(CheckpointError, what, stop_ids, path)
        else:
            agree(what, attempt("stop_ids", stop_ids, path), wanted)
    config.write_text(text, "utf-8")
    other.unlink()
