"""The pieces that `stream` gives, and the limits of `generate`: Day 10."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from nanoserve.cache import KVCache
from nanoserve.checks.common import agree, attempt, holds, must_raise, tells
from nanoserve.checks.generating import watched
from nanoserve.checks.model import VOCAB, tokens
from nanoserve.generate import generate, greedy, next_logits, stream
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0, ignore_eos=True)


@contextmanager
def passes(model: Llama) -> Iterator[list[tuple]]:
    """Each pass of the model meanwhile: how many tokens, and the first and last position."""
    seen = []

    def note(module, args, kwargs):
        read, places = [*args, *kwargs.values()][:2]
        seen.append((read.shape[1], places.flatten()[0].item(), places.flatten()[-1].item()))

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def agree_passes(what: str, seen: list[tuple], T: int, new: int) -> None:
    """AssertionError unless T tokens were read in one pass, and those made in one each."""
    wanted = [(T, 0, T - 1)] + [(1, T + i, T + i) for i in range(new - 1)]
    what = f"{what}: passes for {new} tokens after {T} (tokens, first position, last position)"
    agree(what, seen, wanted)


def same_logprobs(what: str, mine: Any, wanted: Any) -> None:
    """AssertionError unless each id's candidates, ranks and logs are those of the model alone."""
    if wanted is None or mine is None:
        return agree(f"{what}: logprobs", mine, wanted)
    agree(f"{what}: entries of logprobs", len(mine), len(wanted))
    for a, b in zip(mine, wanted, strict=True):
        agree(f"{what}: ids of logprobs", list(a), list(b))
        agree(f"{what}: ranks", [x.rank for x in a.values()], [x.rank for x in b.values()])
        off = max(abs(a[i].logprob - b[i].logprob) for i in a)
        holds(f"{what}: logprobs must be the model's own", off < 1e-4, f"off by {off:.1e}")


def check_stream(model: Llama) -> None:
    """A piece for each token, as soon as it is there; errors before any work."""
    prompt = tokens(1, 6)[0].tolist()
    params = SamplingParams(seed=2, max_tokens=5, ignore_eos=True, logprobs=2)
    wanted = generate(model, prompt, params)
    with passes(model) as seen:
        parts, ids = attempt("stream", stream, model, prompt, params), []
        for count, part in enumerate(parts, 1):
            agree(f"passes when piece {count} came", len(seen), count)
            agree(f"ids in piece {count}", len(part.token_ids), 1)
            ids += part.token_ids
            agree(f"reason of piece {count}", part.finish_reason, "length" if count == 5 else "")
            same_logprobs(f"piece {count}", part.logprobs, wanted.logprobs[count - 1 : count])
    agree("ids of a stream", ids, wanted.token_ids)
    lent = list(prompt)
    parts = stream(model, lent, params)
    lent.append(1)  # the caller's list goes on while the stream waits to be read
    mine = [part.token_ids[0] for part in parts]
    agree("ids of a stream whose caller changed its list of ids meanwhile", mine, ids)
    two = [stream(model, prompt, params) for _ in range(2)]
    mixed = [[part.token_ids[0] for part in pair] for pair in zip(*two, strict=True)]
    agree("ids of two streams at once", mixed, [[i, i] for i in ids])


def check_begun(model: Llama) -> None:
    """A stream behind a cache that holds the prompt's beginning reads the rest alone."""
    prompt = tokens(1, 40)[0].tolist()
    # The penalty is for all of the prompt, what the cache holds too.
    params = replace(GREEDY, repetition_penalty=5.0, max_tokens=9)
    wanted = generate(model, prompt, params).token_ids
    for held in (0, 17, 39):
        cache = KVCache(model.config, 1, 48)  # the last token is not read
        if held:
            next_logits(model, cache, prompt[:held])
        name = f"a stream whose cache holds {held} of 40 tokens"
        with passes(model) as seen:
            parts = attempt(name, list, attempt(name, stream, model, prompt, params, cache))
        agree(f"ids of {name}", [part.token_ids[0] for part in parts], wanted)
        agree(f"passes (tokens, first and last position) of {name}", seen[0], (40 - held, held, 39))
        agree(f"length of the cache after {name}", cache.length, 48)
    cache.truncate(40)
    said = must_raise(ValueError, "all of the prompt held", stream, model, prompt, params, cache)
    tells("all of the prompt held", said, [40])
    short = KVCache(model.config, 1, 47)
    said = must_raise(ValueError, "a cache a place too small", stream, model, prompt, params, short)
    tells("a cache a place too small", said, [40, 9, 47])


def check_limits(model: Llama) -> None:
    """max_tokens, or what the context holds; what is refused, before the model is run."""
    prompt = tokens(1, 60)[0].tolist()
    for most, wanted in ((1, 1), (4, 4), (None, 4)):
        mine = attempt(
            f"max_tokens {most}", generate, model, prompt, replace(GREEDY, max_tokens=most)
        )
        name = f"new ids in a context of 64 after 60, max_tokens {most}"
        agree(name, mine.token_ids, greedy(model, prompt, wanted))
        agree(f"reason with max_tokens {most}", mine.finish_reason, "length")
    no_room = replace(GREEDY, max_tokens=None)
    no_token = replace(GREEDY, stop_token_ids=tuple(range(VOCAB)), min_tokens=1)
    with passes(model) as seen:
        for act in (generate, stream):
            for what, ids, params, words in (
                ("an empty prompt", [], GREEDY, "empty"),
                ("an id past the vocabulary", [1, VOCAB], GREEDY, "vocabulary"),
                ("a text past the context", [1] * 49, GREEDY, "65"),
                ("a prompt that fills the context", [1] * 64, no_room, "64"),
                ("stop texts", [1], replace(GREEDY, stop="."), "stop_token_ids"),
                ("min_tokens, and all are stop ids", [1], no_token, "stop ids"),
            ):
                said = must_raise(ValueError, f"{act.__name__}, {what}", act, model, ids, params)
                holds(f"{act.__name__}, {what}: the message must say {words}", words in said, said)
    agree("passes of the model for what is refused", seen, [])
    model.requires_grad_(True)
    with torch.enable_grad(), watched(model) as given:
        attempt(
            "generate with a model that is trained",
            generate,
            model,
            prompt,
            replace(GREEDY, max_tokens=2),
        )
    model.requires_grad_(False)
    holds("no step may be kept for a gradient", not any(x.requires_grad for x in given))
