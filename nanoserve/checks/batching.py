"""Several requests in one row, each held against itself alone in HuggingFace: Day 13."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from nanoserve.batch import batch_logits
from nanoserve.checks.batching_parts import check_packing, check_parts
from nanoserve.checks.batching_texts import check_texts
from nanoserve.checks.caching import by_largest, poison, poisoned
from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.generating import greedy_prompts, sure_ids, their_greedy, watched
from nanoserve.checks.generating_pieces import GREEDY
from nanoserve.checks.model import VARIANTS, make, tokens
from nanoserve.checks.model_loading import load_saved
from nanoserve.comparison import Scoreboard
from nanoserve.model import Llama
from nanoserve.reference import transformers
from nanoserve.together import generate_batch

Step = list[tuple[int, int]]  # which text reads how many tokens
LENGTHS = (5, 1, 13, 2, 8, 3, 21, 4)  # of eight prompts
NEW = 4  # tokens that each reads after its prompt


def all_at_once(prompts: Sequence[int], new: int) -> list[Step]:
    """Every prompt whole, then a token of each."""
    return [[*enumerate(prompts)], *([(i, 1) for i in range(len(prompts))] for _ in range(new))]


def one_joins_a_step(prompts: Sequence[int], new: int) -> list[Step]:
    """Text i begins at step i, while earlier ones decode; the last come first in the row."""
    steps = []
    for now in range(len(prompts) + new):
        steps.append(
            [
                (i, prompts[i] if i == now else 1)
                for i in reversed(range(len(prompts)))
                if i <= now <= i + new
            ]
        )
    return steps


def in_random_chunks(lengths: Sequence[int], seed: int) -> list[Step]:
    """Some of the texts, in some order, each some of its tokens, until all is read."""
    left, steps = dict(enumerate(lengths)), []
    seeded = torch.Generator().manual_seed(seed)

    def draw(n: int) -> int:
        return torch.randint(n, (1,), generator=seeded).item()

    while left:
        order = torch.randperm(len(left), generator=seeded).tolist()
        some = [list(left)[at] for at in order][: 1 + draw(len(left))]
        steps.append([(i, 1 + draw(min(6, left[i]))) for i in some])
        for i, n in steps[-1]:
            left[i] -= n
        left = {i: n for i, n in left.items() if n}
    return steps


@torch.inference_mode()
def read(
    model: Llama, texts: Sequence[list[int]], steps: list[Step], multiple: int, caches=None
) -> list[tuple[int, int, torch.Tensor]]:
    """Text, how many of its tokens are read, and the scores (V,) behind them; for each part."""
    if caches is None:
        caches = [poisoned(model, 1, len(text)) for text in texts]
    found = []
    for step in steps:
        before = {i: caches[i].length for i, _ in step}
        ids = [texts[i][before[i] : before[i] + n] for i, n in step]
        given = [list(part) for part in ids]
        what = f"a step of (text, tokens) {step} behind {[*before.values()]}"
        rows = attempt(what, batch_logits, model, [caches[i] for i, _ in step], ids, multiple)
        agree(f"shape of the scores, {what}", [*rows.shape], [len(step), model.config.vocab_size])
        agree(f"the caller's ids after {what}", ids, given)
        for (i, n), row in zip(step, rows, strict=True):
            agree(f"length of cache {i} after {what}", caches[i].length, before[i] + n)
            found.append((i, caches[i].length, row))
    return found


def hold(
    board: Scoreboard, path: Path | None, name: str, found: list, wanted: Sequence[torch.Tensor]
) -> None:
    """Scores that `read` found, against wanted[text] (T, V), HuggingFace's of each text alone."""
    mine = torch.stack([row for *_, row in found])
    right = torch.stack([wanted[i][length - 1] for i, length, _ in found])
    largest = max(scores.abs().max() for scores in wanted)
    by_largest(board, path, "scores in a packed row", name, mine, right, largest)


def check_rows(board: Scoreboard, model: Llama, theirs: nn.Module) -> None:
    """Companies of 1 to 8, of one length and of many, mixed, in chunks, padded and not."""
    ids = tokens(8, max(LENGTHS) + NEW)
    texts = [row[: n + NEW].tolist() for row, n in zip(ids, LENGTHS, strict=True)]
    with torch.inference_mode():
        wanted = [theirs(torch.tensor([text]), use_cache=False).logits[0] for text in texts]
    for N in range(1, 9):
        for multiple in (1, 4) if N % 2 else (1, 7):
            steps = all_at_once(LENGTHS[:N], NEW)
            name = f"{N} at once, multiple {multiple}"
            hold(board, None, name, read(model, texts, steps, multiple), wanted)
    steps = one_joins_a_step(LENGTHS, NEW)
    for multiple in (1, 4):
        name = f"one joins a step, multiple {multiple}"
        hold(board, None, name, read(model, texts, steps, multiple), wanted)
    for seed in range(4):
        steps = in_random_chunks([len(text) for text in texts], seed)
        name = f"in chunks, seed {seed}"
        hold(board, None, name, read(model, texts, steps, 1 + seed), wanted)
    check_slots(board, model, texts, wanted)


def check_slots(board: Scoreboard, model: Llama, texts: list, wanted: list) -> None:
    """A cache whose text has ended is taken over by another text, others going on."""
    caches = [poisoned(model, 1, 25) for _ in range(3)]
    lengths = [len(text) for text in texts]
    read(model, texts[:3], [[(0, lengths[0]), (1, 3), (2, 5)]], 1, caches)
    caches[0].truncate(0)
    poison(caches[0], 0)
    now = {0: 4, 1: 1, 2: 2}  # text 4 has the slot of text 0
    texts, wanted = ([held[i] for i in now.values()] for held in (texts, wanted))
    steps = [[(2, 1), (0, lengths[4] - 1), (1, 1)], [(0, 1), (2, 4), (1, 1)]]
    hold(board, None, "a slot taken over", read(model, texts, steps, 1, caches), wanted)


def check_batches(board: Scoreboard) -> None:
    """On made models: everything that big checkpoints are too slow for, or cannot show."""
    for variant in VARIANTS:
        theirs = make(variant | {"max_position_embeddings": 64}).eval()
        theirs.generation_config = transformers.GenerationConfig()
        model = load_saved(theirs)
        half = load_saved(theirs, dtype=torch.bfloat16)
        check_packing()  # first: it says in words what scores cannot
        check_rows(board, model, theirs)
        check_parts(model, half)
        if variant is VARIANTS[0]:  # what is drawn, and for whom, is the same in any shape
            check_texts(model, half)


@torch.inference_mode()
def compare_batch(board: Scoreboard, path: Path, theirs: nn.Module, model: Llama) -> None:
    """Three prompts: greedy texts in one row, then joining one by one; and their padded batch."""
    vocab = model.config.vocab_size
    prompts = [[i % vocab for i in prompt] for prompt, *_ in greedy_prompts(path)][:3]
    alone = [their_greedy(theirs, prompt, 2, ()) for prompt in prompts]
    params = replace(GREEDY, max_tokens=2)
    with watched(model) as given:
        mine = attempt("generate_batch", generate_batch, model, prompts, params)
    sizes = {(*rows.shape,) for rows in given}
    holds("a step must put one position of each text through the head", sizes == {(3, vocab)})
    largest = max(steps.abs().max() for _, steps in alone)
    for i, (ids, steps) in enumerate(alone):
        name = f"prompt {i} of 3"
        board.compare(path, "ids", name, *sure_ids(mine[i].token_ids, ids, steps))
        scores = torch.stack([rows[i] for rows in given])
        by_largest(board, path, "scores in a packed row", name, scores, steps, largest)
    texts = [prompt + ids for prompt, (ids, _) in zip(prompts, alone, strict=True)]
    lengths = [len(prompt) for prompt in prompts]
    found = read(model, texts, one_joins_a_step(lengths, 1), 4)
    mine = torch.stack([row for *_, row in found])
    right = torch.stack([alone[i][1][n - lengths[i]] for i, n, _ in found])
    by_largest(board, path, "scores, one joins a step", "3 prompts", mine, right, largest)
    padded = their_padded(theirs, prompts)
    mine = torch.stack(given)  # (2, 3, V)
    by_largest(board, path, "beside their left-padded batch", "3 prompts", mine, padded, largest)


def their_padded(theirs: nn.Module, prompts: Sequence[list[int]]) -> torch.Tensor:
    """Scores (2, N, V) of two greedy steps of HuggingFace's batch, padded on the left."""
    T = max(map(len, prompts))
    ids = torch.tensor([[0] * (T - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (T - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    settings = transformers.GenerationConfig(
        do_sample=False,
        max_new_tokens=2,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    out = theirs.generate(ids, attention_mask=mask, generation_config=settings)
    return torch.stack(out.logits)
