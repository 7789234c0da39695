"""Text from a model, one token at a time.

Built in the book: day08, day10. Edit there, then run book/tangle.py.
"""

import secrets
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from os import PathLike
from pathlib import Path

import torch

from nanoserve.cache import KVCache
from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.checkpoints.strictjson import json_file
from nanoserve.config import ModelConfig
from nanoserve.model import Llama
from nanoserve.sampling import Logprob, SamplingParams, logprobs_of, process, sample


@torch.inference_mode()
def greedy(
    model: Llama,
    prompt_ids: Sequence[int],
    max_tokens: int,
    stop_token_ids: Collection[int] = (),
) -> list[int]:
    """The most likely next token, again and again: the new ids.

    At most `max_tokens`; a stop id is the last one. Of equal scores the
    lower id wins. No cache: every step reads the whole text again.
    ValueError where the prompt is empty or has an unknown id, where
    max_tokens is below 1, or where the context holds too little.
    """
    check_prompt(model.config, prompt_ids, max_tokens)
    device = model.embed.weight.device
    ids = torch.tensor([list(prompt_ids)], device=device)  # (1, T)
    new = []
    while len(new) < max_tokens:
        last = model(ids)[:, -1]  # (1, C): earlier ones are no news
        token = model.logits(last).argmax(-1)  # (1,)
        ids = torch.cat([ids, token[:, None]], -1)
        new.append(token.item())
        if new[-1] in stop_token_ids:
            break
    return new


def check_prompt(config: ModelConfig, prompt_ids: Sequence[int], max_tokens: int) -> None:
    """ValueError unless max_tokens can follow these ids."""
    check_ids(config, prompt_ids)
    check_room(config, len(prompt_ids), max_tokens)


def check_ids(config: ModelConfig, prompt_ids: Sequence[int]) -> None:
    """ValueError unless these are ids of the vocabulary, one or more."""
    if not len(prompt_ids):
        raise ValueError("the prompt is empty: there is no token to go on from")
    for place, token in enumerate(prompt_ids):
        whole = type(token) is int or isinstance(token, Integral)
        if not whole or isinstance(token, bool):
            raise ValueError(f"prompt id {place} is no int: {token!r}")
        if not 0 <= token < config.vocab_size:
            raise ValueError(
                f"prompt id {place} is {token}, outside the vocabulary of {config.vocab_size}"
            )


def check_room(config: ModelConfig, taken: int, max_tokens: int) -> None:
    """ValueError unless max_tokens fit behind `taken` in the context."""
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int):
        raise ValueError(f"max_tokens must be an int: {max_tokens!r}")
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be 1 or more: {max_tokens}")
    context = config.max_position_embeddings
    if taken + max_tokens > context:
        raise ValueError(
            f"{taken} prompt ids and max_tokens {max_tokens} are "
            f"{taken + max_tokens}, past the context of {context}: "
            "shorten one of them"
        )


def stop_ids(path: str | PathLike) -> tuple[int, ...]:
    """The ids that end a text, of the checkpoint in folder `path`.

    generation_config.json says it, where it is there and says so; else
    config.json does. Either may hold one id or a list. ConfigError or
    CheckpointError where one cannot be read.
    """
    ids = ModelConfig.from_pretrained(path).eos_token_id
    file = Path(path) / "generation_config.json"
    if file.is_file():
        try:
            stated = json_file(file).get("eos_token_id")
        except (OSError, ValueError) as error:
            why = f"{file} cannot be read: {error}"
            raise CheckpointError(why) from None
        ids = ids if stated is None else stated  # not `or`: 0 is an id
    ids = () if ids is None else (ids,) if isinstance(ids, int) else ids
    listed = isinstance(ids, list | tuple)
    if not listed or not all(type(i) is int for i in ids):
        why = f"{file}: eos_token_id must be whole numbers"
        raise CheckpointError(why)
    return tuple(i for i in ids if i >= 0)  # -1 in a file is no id


@torch.inference_mode()
def next_logits(model: Llama, cache: KVCache, ids: Sequence[int]) -> torch.Tensor:
    """Read ids (T) behind what the cache holds; scores (V) of the next."""
    device, start = model.embed.weight.device, cache.length
    positions = torch.arange(start, start + len(ids), device=device)
    read = torch.tensor([list(ids)], device=device)  # (1, T)
    x = model(read, positions, cache.attends())  # (1, T, C)
    cache.advance(len(ids))
    return model.logits(x[0, -1])


@dataclass(frozen=True)
class Generated:
    """What came of a prompt.

    `finish_reason` is "stop" after a stop id, which is the last of
    `token_ids`, and "length" after max_tokens. `logprobs` has a dict for
    each id, if they were asked for.
    """

    token_ids: list[int]
    finish_reason: str
    logprobs: list[dict[int, Logprob]] | None = None


def eos_ids(config: ModelConfig) -> tuple[int, ...]:
    """The ids that end a text, as config.json has them: none, or some."""
    ids = config.eos_token_id
    ids = () if ids is None else (ids,) if isinstance(ids, int) else ids
    return tuple(i for i in ids if i >= 0)  # -1 in a file is no id


def pieces(
    model: Llama,
    prompt: list[int],
    params: SamplingParams,
    cache: KVCache | None = None,
) -> Iterator[Generated]:
    """The loop of `stream`, by params that are settled."""
    weight, room = model.embed.weight, len(prompt) + params.max_tokens - 1
    if cache is None:
        kind = weight.dtype, weight.device
        cache = KVCache(model.config, 1, room, *kind)
    ids, output, reason = prompt[cache.length :], [], ""
    while not reason:
        logits = next_logits(model, cache, ids)  # (V,)
        scores = process(logits[None], [params], [(prompt, output)])
        token = sample(scores, [params.seed], [len(output)]).item()
        output.append(token)
        if token in params.stop_token_ids:
            reason = "stop"
        elif len(output) == params.max_tokens:
            reason = "length"
        logprobs = None
        if params.logprobs is not None:
            logprobs = [logprobs_of(logits, token, params.logprobs)]
        ids = [token]
        yield Generated([token], reason, logprobs)


def check_stops(config: ModelConfig, params: SamplingParams) -> SamplingParams:
    """The params. ValueError where min_tokens leaves no token to draw."""
    V = config.vocab_size
    stops = {i for i in params.stop_token_ids if i < V}
    if params.min_tokens and len(stops) == V:
        raise ValueError(
            f"min_tokens {params.min_tokens} holds back the stop ids, "
            f"and all {V} tokens are stop ids: leave one to draw"
        )
    return params


def settle(model: Llama, prompt_ids: Sequence[int], params: SamplingParams) -> SamplingParams:
    """Params with nothing left open: max_tokens, all stop ids, a seed.

    ValueError as from `greedy`, for stop texts, which need a tokenizer,
    and for more min_tokens than the context or the stop ids leave.
    """
    most = params.max_tokens
    if most is None:
        context = model.config.max_position_embeddings
        most = max(1, context - len(prompt_ids))
    check_prompt(model.config, prompt_ids, most)
    if params.stop:
        raise ValueError("stop texts need a tokenizer: pass stop_token_ids instead")
    eos = () if params.ignore_eos else eos_ids(model.config)
    stops = (*params.stop_token_ids, *eos)
    seed = secrets.randbits(63) if params.seed is None else params.seed
    params = replace(params, seed=seed, max_tokens=most, stop_token_ids=stops)
    return check_stops(model.config, params)


def stream(
    model: Llama,
    prompt_ids: Sequence[int],
    params: SamplingParams,
    cache: KVCache | None = None,
) -> Iterator[Generated]:
    """As `generate`, a piece for each token as soon as it is there.

    Every piece holds one id; the last one has a finish_reason, those
    before it "". Errors are raised by this call, before any work. A
    `cache` that holds the prompt's first tokens saves reading them.
    """
    params, T = settle(model, prompt_ids, params), len(prompt_ids)
    if cache is not None and cache.length >= T:
        raise ValueError(
            f"the cache holds {cache.length} tokens and the prompt has "
            f"{T}: truncate it, at least one must be read"
        )
    if cache is not None and cache.max_len < T + params.max_tokens - 1:
        raise ValueError(
            f"{T} prompt ids and max_tokens {params.max_tokens} do "
            f"not fit into a cache of {cache.max_len} places"
        )
    return pieces(model, list(prompt_ids), params, cache)


def generate(model: Llama, prompt_ids: Sequence[int], params: SamplingParams) -> Generated:
    """One text, with a cache: the prompt is read once, then each token.

    It ends after an id of `params.stop_token_ids` or the config's
    eos_token_id, unless that is ignored, or after max_tokens. ValueError
    as from `settle`.
    """
    parts = list(stream(model, prompt_ids, params))
    ids = [part.token_ids[0] for part in parts]
    logprobs = None
    if params.logprobs is not None:
        logprobs = [part.logprobs[0] for part in parts]
    return Generated(ids, parts[-1].finish_reason, logprobs)
