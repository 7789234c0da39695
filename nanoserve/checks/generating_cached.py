"""`generate` and `stream` held against the loops without a cache of Days 8 and 9: Day 10."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.generating import greedy_prompts, sure_ids, their_greedy, watched
from nanoserve.checks.generating_pieces import (
    GREEDY,
    agree_passes,
    check_begun,
    check_limits,
    check_stream,
    passes,
    same_logprobs,
)
from nanoserve.checks.model import VOCAB, tokens
from nanoserve.comparison import Scoreboard
from nanoserve.generate import Generated, eos_ids, generate, greedy
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams, logprobs_of, process, sample

SAMPLED = (
    SamplingParams(seed=5, max_tokens=9),
    SamplingParams(temperature=2.0, top_k=20, top_p=0.9, seed=-3, max_tokens=12, ignore_eos=True),
    SamplingParams(temperature=0.7, repetition_penalty=1.5, seed=0, max_tokens=7, logprobs=3),
    SamplingParams(presence_penalty=1.0, frequency_penalty=0.5, seed=1, max_tokens=9, logprobs=0),
    SamplingParams(seed=9, min_tokens=6, max_tokens=12, stop_token_ids=tuple(range(5, 45))),
)


def compare_generate(board: Scoreboard, path: Path, theirs: nn.Module, model: Llama) -> None:
    """Ids and scores of every step of HuggingFace's `generate` without a cache, two prompts."""
    for prompt, most, stops in list(greedy_prompts(path))[2::5]:
        prompt = [i % model.config.vocab_size for i in prompt]  # a chosen one may have few
        ids, steps = their_greedy(theirs, prompt, most, stops)  # (n, V)
        params = replace(GREEDY, max_tokens=most, stop_token_ids=stops)
        name = f"prompt {prompt[:4]}"
        with watched(model) as given, passes(model) as seen:
            mine = attempt(f"generate from {prompt[:4]}", generate, model, prompt, params)
        agree_passes(f"generate, {name}", seen, len(prompt), len(mine.token_ids))
        board.compare(path, "ids of generate", name, *sure_ids(mine.token_ids, ids, steps))
        sizes = {rows.numel() for rows in given}
        holds("a step must put one position through the head", sizes == {steps.shape[-1]})
        scores = torch.stack([rows.flatten() for rows in given])
        top = steps.abs().max()
        board.compare(path, "scores of generate, of the largest", name, scores / top, steps / top)


@torch.inference_mode()
def plain(model: Llama, prompt: list[int], params: SamplingParams, ends: tuple) -> Generated:
    """What `generate` must give, without a cache: the whole text is read at every step."""
    output, logprobs, reason = [], [], ""
    ends = (*params.stop_token_ids, *(() if params.ignore_eos else ends))
    params = replace(params, stop_token_ids=ends)
    while not reason:
        x = model(torch.tensor([prompt + output]))
        logits = model.logits(x[:, -1])  # (1, V)
        scores = process(logits, [params], [(prompt, output)])
        token = sample(scores, [params.seed], [len(output)]).item()
        output.append(token)
        if params.logprobs is not None:
            logprobs.append(logprobs_of(logits[0], token, params.logprobs))
        full = len(output) == params.max_tokens
        reason = "stop" if token in ends else "length" if full else ""
    return Generated(output, reason, None if params.logprobs is None else logprobs)


def check_generate(model: Llama) -> None:
    """On a made model with a context of 64: everything that `generate` promises."""
    ends = (11, 17)
    model.config = replace(model.config, eos_token_id=ends)
    check_sampled(model, ends)
    check_ends(model)
    check_stream(model)
    check_begun(model)
    check_limits(model)


def check_greedy_texts(model: Llama) -> None:
    """Day 8's text, in one pass over the prompt and one a token."""
    for T in (1, 2, 40):
        prompt = tokens(1, T)[0].tolist()
        before = list(prompt)
        with passes(model) as seen:
            mine = attempt("generate", generate, model, prompt, replace(GREEDY, max_tokens=9))
        agree_passes("generate", seen, T, 9)
        agree("the caller's prompt after generate", prompt, before)
        agree(f"greedy ids after {T}", mine.token_ids, greedy(model, prompt, 9))
        agree("finish_reason, logprobs", (mine.finish_reason, mine.logprobs), ("length", None))
    holds("ids must be a list of int", {*map(type, mine.token_ids)} == {int})


def check_sampled(model: Llama, ends: tuple[int, ...]) -> None:
    """Seeded texts as the loop without a cache writes them, twice; without a seed, others."""
    for i, params in enumerate(SAMPLED):
        prompt = tokens(1, 3 if i % 2 else 30)[0].tolist()
        wanted = plain(model, prompt, params, ends)
        for time in ("first", "second"):
            mine = attempt(f"generate with {params}", generate, model, prompt, params)
            what = f"the {time} text with {params}"
            agree(f"{what}: ids", mine.token_ids, wanted.token_ids)
            agree(f"{what}: finish_reason", mine.finish_reason, wanted.finish_reason)
            same_logprobs(what, mine.logprobs, wanted.logprobs)
    hot = SamplingParams(temperature=9.0, max_tokens=12, ignore_eos=True)
    texts = {tuple(generate(model, prompt, hot).token_ids) for _ in range(3)}
    agree("different texts of three without a seed", len(texts), 3)


def check_ends(model: Llama) -> None:
    """Stop ids of the params and of the config, at every place, heeded, ignored and held back."""
    prompt = tokens(1, 5)[0].tolist()
    config, free = model.config, greedy(model, prompt, 9)
    for eos, wanted in ((None, ()), (0, (0,)), (7, (7,)), ((0, 7), (0, 7))):
        mine = attempt("eos_ids", eos_ids, replace(config, eos_token_id=eos))
        agree(f"eos_ids where eos_token_id is {eos}", mine, wanted)
    unused = next(i for i in range(VOCAB) if i not in free)

    def same(what: str, wanted: int, eos: Any = None, **given: Any) -> None:
        model.config = replace(config, eos_token_id=eos)
        params = SamplingParams(temperature=0, max_tokens=9, **given)
        mine = attempt(what, generate, model, prompt, params)
        agree(f"{what}: ids", mine.token_ids, free[:wanted])
        agree(
            f"{what}: reason", mine.finish_reason, "stop" if free[wanted - 1] in ends else "length"
        )

    for token in dict.fromkeys(free):
        n, ends = free.index(token) + 1, (token,)
        same(f"stop id {token}", n, stop_token_ids=(token,))
        same(f"the second of two stop ids, {token}", n, stop_token_ids=(unused, token))
        same(f"stop id {token} beside another end", n, eos=unused, stop_token_ids=(token,))
        same(f"eos_token_id {token}", n, eos=token)
        same(f"the second of two ends, {token}", n, eos=(unused, token))
        same(f"stop id {token} while ends are ignored", n, stop_token_ids=ends, ignore_eos=True)
        ends = ()
        same(f"eos_token_id {token}, ignored", 9, eos=token, ignore_eos=True)
    for kind in ("eos_token_id", "stop_token_ids"):
        # Not before the seventh token, and then it is there to be drawn.
        model.config = replace(config, eos_token_id=free[0] if kind == "eos_token_id" else None)
        stops = (free[0],) if kind == "stop_token_ids" else ()
        held = SamplingParams(temperature=0, min_tokens=6, max_tokens=9, stop_token_ids=stops)
        mine = attempt("generate with min_tokens", generate, model, prompt, held).token_ids
        holds(f"{kind} must not be drawn before min_tokens", free[0] not in mine[:6], f"{mine}")
        holds("min_tokens must not end a text", len(mine) > 6, f"{mine}")
    model.config = config
