"""Engines with a cache of prefixes: warm = cold = HuggingFace, and hits by hand. Day 18."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nanoserve.checks.common import agree, alike, attempt, holds
from nanoserve.checks.engine_aborts import check_aborts
from nanoserve.checks.generating import sure_ids, their_greedy, their_model
from nanoserve.checks.generating_pieces import GREEDY, passes
from nanoserve.checks.model import VARIANTS, VOCAB, make
from nanoserve.checks.model_loading import load
from nanoserve.checks.serving import SAMPLED, check_served, run, serve
from nanoserve.checks.serving_mix import mix_of, steps_of, with_their_weights
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.engine.engine import Engine
from nanoserve.generate import generate
from nanoserve.model import Llama
from nanoserve.reference import transformers

LENGTHS = (15, 16, 17, 31, 32, 33)  # around one block and two
NEW = 4
MODES: dict[str, dict[str, Any]] = {
    "in a roomy pool": {"num_blocks": 48},
    "in a cramped pool": {"num_blocks": 6},
    "in blocks of 3, cramped, in chunks of 19": {
        "block_size": 3,
        "num_blocks": 26,
        "max_num_batched_tokens": 19,
    },
}


def check_made(board: Scoreboard) -> dict[str, float]:
    """All of it on one made model; the smallest margin that was met."""
    theirs = make(VARIANTS[0] | {"max_position_embeddings": 128, "num_hidden_layers": 2}).eval()
    theirs.generation_config = transformers.GenerationConfig()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(Path(folder) / MADE_UP)
        model = load(Path(folder) / MADE_UP)
    rows = torch.randint(VOCAB, (2, 40), generator=torch.Generator().manual_seed(6)).tolist()
    prompts = [rows[0][:n] for n in LENGTHS]
    check_hits(model, rows)
    check_turns(model, rows)
    check_chunks(model, rows)
    check_aborts(model, (1, 4, 6), enable_prefix_caching=True)
    greedy = [(ids, replace(GREEDY, max_tokens=NEW + i)) for i, ids in enumerate(prompts)]
    wanted = [their_greedy(theirs, ids, p.max_tokens, ()) for ids, p in greedy]
    drawn = [(rows[i][:20], replace(p, max_tokens=9)) for i, p in enumerate(SAMPLED[:2])]
    alone = [generate(model, *asked) for asked in drawn]
    for mode, settings in MODES.items():
        engine = attempt(mode, Engine, model, **settings)
        for how in ("cold", "warm"):
            check_served(board, engine, [*greedy, *drawn], wanted, alone, f"{mode}, {how}")
    two = torch.cat([steps for _, steps in wanted]).topk(2).values
    return {MADE_UP: (two[:, 0] - two[:, 1]).min().item()}


def ask(engine: Engine, prompt: Sequence[int], most: int = NEW, **more: Any) -> Any:
    """The last output of one request, alone in the engine."""
    params = replace(GREEDY, max_tokens=most)
    attempt("add_request", engine.add_request, "one", list(prompt), params, **more)
    output = run(engine)["one"]
    attempt("audit", engine.audit)
    return output


def shared(engine: Engine) -> dict[int, torch.Tensor]:
    """Keys and values (2, layers, size, K, D) of each block that can be found."""
    pool, size = engine.runner.pool, engine.runner.pool.block_size
    both = torch.stack((pool.k, pool.v))
    blocks = engine.scheduler.blocks.found.values()
    return {block: both[:, :, block * size : (block + 1) * size] for block in blocks}


def unchanged(engine: Engine, kept: dict[int, torch.Tensor]) -> bool:
    """Whether these blocks have the same keys and values, to the bit."""
    now = shared(engine)
    return all(block in now and alike(now[block], was) for block, was in kept.items())


def check_hits(model: Llama, rows: list[list[int]]) -> None:
    """By hand: each length three times, other texts, salts; what is read, and that is all."""
    for size in (16, 1, 3):
        for length in LENGTHS:
            engine, prompt = Engine(model, num_blocks=90, block_size=size), rows[0][:length]
            hits, texts = (length - 1) // size * size, []
            for times, cached in enumerate((0, hits, hits), 1):
                what = f"{length} tokens in blocks of {size}, asked {times} times"
                kept = shared(engine)
                with passes(model) as seen:
                    output = ask(engine, prompt, most=2)
                holds(
                    f"{what}: what others may find must not be written to", unchanged(engine, kept)
                )
                agree(f"{what}: cached", output.num_cached_tokens, cached)
                first = length - cached, cached, length - 1
                agree(f"{what}: what the first pass reads, and where", seen[0], first)
                agree(f"{what}: passes", len(seen), 2)
                agree(f"{what}: free blocks", engine.num_free_blocks, 90)
                texts.append(output.token_ids)
            agree(f"{length} tokens in blocks of {size}: ids, warm and cold", texts, texts[:1] * 3)
    engine, off = Engine(model, num_blocks=90), Engine(model, enable_prefix_caching=False)
    same, other = [*rows[0][:32], 1], [*rows[1][:16], *rows[0][16:32], 1]
    for what, prompt, salt, cached in (
        ("a text", same, None, 0),
        ("another beginning, the same second block", other, None, 0),
        ("the first again", same, None, 32),
        ("one that parts in the second block", [*same[:20], *rows[1][:20]], None, 16),
        ("with a salt", same, "a", 0),
        ("with another", same, "b", 0),
        ("with the first one again", same, "a", 32),
        ("without a salt", same, None, 32),
    ):
        output = ask(engine, prompt, cache_salt=salt)
        agree(f"{what}: cached", output.num_cached_tokens, cached)
        agree(f"{what}: ids", output.token_ids, ask(off, prompt).token_ids)
    agree("cached where it is switched off", ask(off, same).num_cached_tokens, 0)


def check_turns(model: Llama, rows: list[list[int]]) -> None:
    """Ten turns of a conversation: each reads its own new tokens, and less than a block besides."""
    engine, talk = Engine(model, num_blocks=40), rows[0][:13]  # some turns end a block
    for turn in range(10):
        output = ask(engine, talk)
        there = (
            (len(talk) - 5) // 16 * 16 if turn else 0
        )  # the last answer's last token was not read
        agree(f"turn {turn}: cached", output.num_cached_tokens, there)
        agree(
            f"turn {turn}: ids",
            output.token_ids,
            generate(model, talk, replace(GREEDY, max_tokens=NEW)).token_ids,
        )
        talk = [*talk, *output.token_ids, *rows[1][turn * 4 : turn * 4 + 4]]


def check_chunks(model: Llama, rows: list[list[int]]) -> None:
    """Somebody comes between two chunks: what is written is found, and no more. Two in one step."""
    params = replace(GREEDY, max_tokens=NEW)
    wanted = generate(model, rows[0], params).token_ids
    for chunk in (5, 16, 24):
        engine = Engine(model, num_blocks=40, max_num_batched_tokens=chunk)
        engine.add_request("first", rows[0], params)
        engine.step()
        engine.scheduler.max_num_batched_tokens = 512
        engine.add_request("second", rows[0], params)
        told = run(engine)
        agree(f"chunks of {chunk}: ids", [o.token_ids for o in told.values()], [wanted] * 2)
        cached = told["second"].num_cached_tokens
        agree(f"chunks of {chunk}: found by the second", cached, chunk // 16 * 16)
    engine = Engine(model, num_blocks=40)
    for name in "abc":  # none can find another's: nothing is written yet
        engine.add_request(name, rows[0], params)
    told = run(engine)
    agree("three in one step: ids", [o.token_ids for o in told.values()], [wanted] * 3)
    agree("three in one step: cached", [o.num_cached_tokens for o in told.values()], [0] * 3)
    agree("three in one step: found later", ask(engine, rows[0]).num_cached_tokens, 32)


def compare_checkpoint(board: Scoreboard, path: Path) -> dict[str, float]:
    """A prompt, the same again, and one that parts from it: ids and scores; the smallest margin."""
    theirs, known, margins = their_model(path), {}, []
    ids = mix_of(path, theirs.config.vocab_size)[7][0]  # of all the longest, or seven tokens
    ids = (ids * 9)[:9]
    model = with_their_weights(theirs, path)
    engine = attempt(f"Engine on {path.name}", Engine, model, block_size=4, num_blocks=12)
    params = replace(GREEDY, max_tokens=2)
    asked = [ids, ids, [*ids[:5], *ids[:3]]]
    mine, scores = serve("a prompt again", engine, [(prompt, params) for prompt in asked])
    agree("cached, of three that begin alike", [o.num_cached_tokens for o in mine], [0, 8, 4])
    for i, output in enumerate(mine):
        text = output.prompt_token_ids, output.token_ids
        if str(text) not in known:
            known[str(text)] = steps_of(theirs, *text)
        steps = known[str(text)]
        two, best, name = steps.topk(2), steps.argmax(-1).tolist(), f"prompt {i}"
        margins.append((two.values[:, 0] - two.values[:, 1]).min().item())
        board.compare(path, "ids", name, *sure_ids(output.token_ids, best, steps))
        rows, top = torch.stack(scores[str(i)]), steps.abs().max()
        board.compare(path, "scores of every step, of the largest", name, rows / top, steps / top)
    return {path.name: min(margins)}
