"""Greedy generation held against HuggingFace's own `generate`: Day 8."""

import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from nanoserve.checks.common import BF16, F32, agree, attempt, holds
from nanoserve.checks.generating_edges import (
    CONTEXT,
    check_context,
    check_refusals,
    check_stop_files,
    check_ties,
)
from nanoserve.checks.model import VARIANTS, VOCAB, make, tokens
from nanoserve.checks.model_loading import load
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.config import ModelConfig
from nanoserve.generate import greedy
from nanoserve.model import Llama
from nanoserve.reference import transformers

# Text, the most new tokens, and stop ids: several for some, and the last text ends by itself, with
# a full stop (id 30).
TEXTS = (
    ("The capital of France is", 2, ()),
    ("def add(a, b):\n    return", 3, ()),
    ("1, 2, 3, 4, 5,", 3, ()),
    ("Once upon a time there was a", 2, ()),
    ("Die Hauptstadt von Deutschland ist", 2, ()),
    ("Water boils at a temperature of", 2, (0, 1, 2)),
    ("She opened the door, looked around and", 2, (2,)),
    ("The opposite of hot is", 5, (2, 30, 0)),
)


def their_model(path: Path, dtype: torch.dtype = F32) -> nn.Module:
    """HuggingFace's model of the checkpoint in `path`, eager, with none of its own settings."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, attn_implementation="eager", local_files_only=True
    )
    model.generation_config = transformers.GenerationConfig()
    return model.eval()


@torch.inference_mode()
def their_greedy(
    model: nn.Module, prompt: Sequence[int], most: int, stops: Collection[int]
) -> tuple[list[int], torch.Tensor]:
    """The new ids of HuggingFace's `generate`, and the scores (n, V) of every step."""
    ids = torch.tensor([list(prompt)])
    settings = transformers.GenerationConfig(
        do_sample=False,
        max_new_tokens=most,
        eos_token_id=list(stops) or None,
        pad_token_id=0,
        use_cache=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    return out.sequences[0, ids.shape[1] :].tolist(), torch.cat(out.logits)


def greedy_prompts(path: Path) -> Iterator[tuple[list[int], int, tuple[int, ...]]]:
    """Eight prompts with their limits and stop ids: texts, or seeded ids without a tokenizer."""
    if (path / "tokenizer.json").is_file():
        encode = Tokenizer.from_file(str(path / "tokenizer.json")).encode
        for text, most, stops in TEXTS:
            yield encode(text).ids, most, stops
        return
    seeded = torch.Generator().manual_seed(0)
    ids = min(500, ModelConfig.from_pretrained(path).vocab_size)
    for length, (_, most, stops) in zip((1, 2, 4, 5, 9, 16, 17, 33), TEXTS, strict=True):
        yield torch.randint(ids, (length,), generator=seeded).tolist(), min(most, 2), stops


@contextmanager
def watched(model: Llama) -> Iterator[list[torch.Tensor]]:
    """The scores that the model's head gives meanwhile, in order."""
    given, head = [], model.logits

    def logits(x: torch.Tensor) -> torch.Tensor:
        given.append(head(x))
        return given[-1]

    model.logits = logits
    try:
        yield given
    finally:
        del model.logits


def recorded(
    model: Llama, prompt: list[int], most: int, stops: Collection[int]
) -> tuple[list[int], torch.Tensor]:
    """Our new ids, and the scores (n, V) of every step."""
    before, size = list(prompt), model.config.vocab_size
    with watched(model) as given:
        try:
            mine = attempt(f"greedy from {prompt[:4]}", greedy, model, prompt, most, stops)
        finally:  # said first: more rows may be the reason of an error
            rows = max((scores.numel() for scores in given), default=0) // size
            holds("the last position alone must go through the head", rows < 2, f"{rows} did")
    agree("the caller's prompt after greedy", prompt, before)
    kind = type(mine).__name__
    if isinstance(mine, list):
        kinds = sorted({type(token).__name__ for token in mine}) or ["nothing"]
        kind = f"list of {' and '.join(kinds)}"
    holds("greedy must give a list of int", kind == "list of int", f"it gave {kind}")
    asked = len(given)
    said = f"model.logits was called {asked} times for {len(mine)} new ids"
    said += "; a stop id stays in, as the last" if asked == len(mine) + 1 else ""
    holds("greedy must call model.logits once for each new id", asked == len(mine), said)
    return mine, torch.cat([rows.reshape(1, -1) for rows in given])


def sure_ids(
    mine: list[int], theirs: list[int], scores: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both lists of new ids, up to the first margin of `scores` (n, V) that rounding can close."""
    two = scores.topk(2).values
    unsure = (two[:, 0] - two[:, 1] <= 1e-4 * (1 + two[:, 0].abs())).tolist()
    if True in unsure:
        mine, theirs = mine[: unsure.index(True)], theirs[: unsure.index(True)]
    if len(mine) != len(theirs):
        agree("new ids", mine, theirs)
    return torch.tensor(mine), torch.tensor(theirs)


def check_greedy(board: Scoreboard) -> None:
    """On made models: stops in every place, ties, the end of the context, what is refused."""
    for variant in VARIANTS:
        theirs = make(variant | {"max_position_embeddings": CONTEXT}).eval()
        theirs.generation_config = transformers.GenerationConfig()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / MADE_UP
            theirs.save_pretrained(path)
            model = load(path)
            check_stops(board, model, theirs)
            long = tokens(1, CONTEXT - 4)[0].tolist()
            check_context(model, long, their_greedy(theirs, long, 4, ())[0])
            check_refusals(model)
            check_ties(model)
            check_stop_files(path)
            half = their_model(path, BF16)
            wanted, _ = their_greedy(half, tokens(1, 9)[0].tolist(), 8, ())
            mine = greedy(load(path, dtype=BF16), tokens(1, 9)[0].tolist(), 8)
            agree("ids of a bf16 model", mine, wanted)


def check_stops(board: Scoreboard, model: Llama, theirs: nn.Module) -> None:
    """A stop at every place of a text, alone and among others; texts of 1 and of 40 tokens."""
    for length in (1, 2, 40):
        prompt = tokens(1, length)[0].tolist()
        free, scores = their_greedy(theirs, prompt, 9, ())
        first, steps = recorded(model, prompt, 9, ())
        agree(f"new ids of a made model, prompt of {length}", first, free)
        top = scores.abs().max()
        name = f"prompt of {length}"
        board.compare(None, "scores of steps", name, steps / top, scores / top)
        check_no_graph(model, prompt)
        check_elsewhere(model, prompt, free)
        agree("the list that greedy gave first, after later calls", first, free)
        for place, stop in enumerate(free):
            unused = next(i for i in range(VOCAB) if i not in free)
            for stops in ([stop], (unused, stop), {stop, unused}, [stop, free[-1]]):
                end = next(i for i, token in enumerate(free) if token in stops)
                wanted = free[: end + 1]
                mine = attempt("greedy with stops", greedy, model, prompt, 9, stops)
                agree(f"ids with stops {stops}, where token {place} is {stop}", mine, wanted)
            agree(f"ids, {place + 1} at most", greedy(model, prompt, place + 1), free[: place + 1])


def check_no_graph(model: Llama, prompt: list[int]) -> None:
    """Whoever trains the model may call greedy: no step is kept for a gradient."""
    model.requires_grad_(True)
    with torch.enable_grad(), watched(model) as given:
        attempt("greedy of a model that is trained", greedy, model, prompt, 2)
    model.requires_grad_(False)
    kept = any(x.requires_grad for x in given)
    holds("no step may be kept for a gradient", not kept, "@torch.inference_mode() is missing")


def check_elsewhere(model: Llama, prompt: list[int], wanted: list[int]) -> None:
    """The ids go where the model is, whatever device torch would choose."""
    with torch.device("meta"):
        mine = attempt("greedy, where torch's default device is no CPU", greedy, model, prompt, 1)
    agree("ids, where torch's default device is no CPU", mine, wanted[:1])
