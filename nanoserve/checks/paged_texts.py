"""Texts written through block manager and pool, held against HuggingFace's: Day 15."""

from pathlib import Path

import torch
from torch import nn

from nanoserve.checks.caching import by_largest
from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.generating import greedy_prompts, sure_ids
from nanoserve.checks.model import VARIANTS, make, tokens
from nanoserve.checks.model_loading import load_saved
from nanoserve.comparison import Scoreboard
from nanoserve.engine.blocks import BlockManager
from nanoserve.engine.pool import KVPool, Span
from nanoserve.model import Llama

ROWS = 2  # texts at a time; the others wait


class Writing:
    """A text that is being written: its tokens, how many are in the pool, and where."""

    def __init__(self, prompt: list[int], most: int):
        self.tokens, self.end = [*prompt], len(prompt) + most
        self.prompt, self.computed, self.table, self.scores = len(prompt), 0, [], []

    def new(self) -> int:
        return len(self.tokens) - self.computed


def make_room(blocks: BlockManager, texts: list[Writing]) -> None:
    """Blocks for the tokens that the next step reads."""
    for text in texts:
        what = f"grow {text.table} to {len(text.tokens)} tokens"
        new = attempt(what, blocks.grow, text.table, len(text.tokens))
        holds(f"{what}: {blocks.num_free} free blocks must suffice", new is not None)
        text.table += new


def step(model: Llama, pool: KVPool, texts: list[Writing]) -> None:
    """Read what each has new, and give it one more token."""
    spans = [Span(tuple(t.table), t.computed, t.new()) for t in texts]
    row = torch.tensor([[i for t in texts for i in t.tokens[t.computed :]]])
    places = torch.tensor([[p for t in texts for p in range(t.computed, len(t.tokens))]])
    x = attempt(f"a pass of {spans}", model, row, places, attempt("attends", pool.attends, spans))
    last = torch.tensor([span.new for span in spans]).cumsum(0) - 1
    scores = model.logits(x[0, last])  # (N, V)
    for text, one in zip(texts, scores, strict=True):
        text.computed = len(text.tokens)
        text.scores.append(one)
        text.tokens.append(one.argmax().item())


def end(pool: KVPool, blocks: BlockManager, text: Writing) -> None:
    """Its blocks go back, and are poisoned where nobody else holds them."""
    attempt(f"free {text.table}", blocks.free, text.table)
    for block in text.table:
        if not blocks.references[block]:
            slots = slice(block * pool.block_size, (block + 1) * pool.block_size)
            pool.k[:, slots], pool.v[:, slots] = torch.nan, torch.nan
    text.table = []


@torch.inference_mode()
def write(model: Llama, prompts: list[list[int]], most: int, block_size: int) -> list[Writing]:
    """Every prompt with its `most` greedy tokens, two at a time, in a pool just large enough."""
    waiting, running, done = [Writing(prompt, most) for prompt in prompts], [], []
    needs = sorted(-(-(text.end - 1) // block_size) for text in waiting)
    blocks = attempt("BlockManager", BlockManager, sum(needs[-ROWS:]), block_size)
    pool = KVPool(model.config, blocks.num_blocks, block_size)
    pool.k.fill_(torch.nan), pool.v.fill_(torch.nan)
    while waiting or running:
        while waiting and len(running) < ROWS:
            running.append(waiting.pop(0))
        make_room(blocks, running)
        attempt("audit before a step", blocks.audit, [text.table for text in running])
        step(model, pool, running)
        for text in [t for t in running if len(t.tokens) == t.end]:
            end(pool, blocks, text)
            running.remove(text)
            done.append(text)
        attempt("audit after a step", blocks.audit, [text.table for text in running])
    agree("free blocks when all is done", blocks.num_free, blocks.num_blocks)
    return done


@torch.inference_mode()
def check_texts(
    board: Scoreboard, path, theirs: nn.Module, model: Llama, prompts, most=6, sizes=(3, 16)
) -> None:
    """Ids and scores of texts in company, each against HuggingFace alone, without a cache."""
    for size in sizes:
        for text in attempt("texts in company", write, model, prompts, most, size):
            ids, n = text.tokens, text.prompt
            wanted = theirs(torch.tensor([ids[:-1]]), use_cache=False).logits[0, n - 1 :]
            name = f"prompt {ids[:4]} of {n}, blocks of {size}"
            best = wanted.argmax(-1).tolist()
            board.compare(path, "ids", name, *sure_ids(ids[n:], best, wanted))
            what, largest = "scores", wanted.abs().max()
            by_largest(board, path, what, name, torch.stack(text.scores), wanted, largest)


def check_made_texts(board: Scoreboard) -> None:
    """On made models: prompts that end around the ends of blocks."""
    for variant in VARIANTS:
        theirs = make(variant | {"max_position_embeddings": 64}).eval()
        model = load_saved(theirs)
        prompts = [tokens(1, n)[0].tolist() for n in (15, 2, 16, 3, 1, 17, 4)]
        check_texts(board, None, theirs, model, prompts, most=8)


def some_prompts(path: Path, vocab_size: int) -> list[list[int]]:
    """Four prompts of a checkpoint, of different lengths."""
    found = [prompt for prompt, _, _ in greedy_prompts(path)][1::2]
    return [[token % vocab_size for token in prompt] for prompt in found]
