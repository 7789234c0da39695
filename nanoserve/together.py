"""Several texts, all of them in one pass of the model a token.

Built in the book: day13. Edit there, then run book/tangle.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from nanoserve.batch import batch_logits
from nanoserve.cache import KVCache
from nanoserve.generate import Generated, settle
from nanoserve.model import Llama
from nanoserve.sampling import Logprob, SamplingParams, logprobs_of, process, sample


@dataclass
class Draft:
    """A text in the making: what is known of it, and its cache."""

    prompt: list[int]
    params: SamplingParams
    cache: KVCache
    output: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    reason: str = ""

    def unread(self) -> list[int]:
        """The ids that are known and not yet in the cache."""
        return (self.prompt + self.output)[self.cache.length :]

    def add(self, token: int, logits: torch.Tensor) -> None:
        """The token that was drawn from logits (V,); perhaps the last."""
        self.output.append(token)
        if token in self.params.stop_token_ids:
            self.reason = "stop"
        elif len(self.output) == self.params.max_tokens:
            self.reason = "length"
        if self.params.logprobs is not None:
            count = self.params.logprobs
            self.logprobs.append(logprobs_of(logits, token, count))


def write_one(model: Llama, drafts: Sequence[Draft], multiple: int = 1) -> None:
    """One more token for each draft, in one pass."""
    caches = [d.cache for d in drafts]
    unread = [d.unread() for d in drafts]
    logits = batch_logits(model, caches, unread, multiple)  # (N, V)
    params = [d.params for d in drafts]
    histories = [(d.prompt, d.output) for d in drafts]
    scores = process(logits, params, histories)
    seeds = [p.seed for p in params]
    tokens = sample(scores, seeds, [len(d.output) for d in drafts])
    for i, draft in enumerate(drafts):
        draft.add(tokens[i].item(), logits[i])


def generate_batch(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams | Sequence[SamplingParams],
    multiple: int = 1,
) -> list[Generated]:
    """`generate` of each prompt, all of them in one pass a token.

    `params` for all, or for each its own. A text that has ended drops
    out; `multiple` pads as in `batch_logits`. ValueError, with the
    number of the prompt, as from `generate`, before any work.
    """
    drafts = begin(model, prompts, params)
    while running := [d for d in drafts if not d.reason]:
        write_one(model, running, multiple)
    return [Generated(d.output, d.reason, d.logprobs or None) for d in drafts]


def begin(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams | Sequence[SamplingParams],
) -> list[Draft]:
    """A draft for each prompt, or ValueError before memory is taken."""
    if isinstance(params, SamplingParams):
        params = [params] * len(prompts)
    if len(params) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts, {len(params)} params")
    settled = []
    for i, prompt in enumerate(prompts):
        if isinstance(prompt, str) or not hasattr(prompt, "__len__"):
            raise ValueError(f"prompt {i} is no list of ids: {prompt!r}")
        try:
            settled.append(settle(model, prompt, params[i]))
        except ValueError as error:
            raise ValueError(f"prompt {i}: {error}") from None
    weight = model.embed.weight
    kind = weight.dtype, weight.device
    drafts = []
    for prompt, own in zip(prompts, settled, strict=True):
        room = len(prompt) + own.max_tokens - 1  # the last is never read
        cache = KVCache(model.config, 1, room, *kind)
        drafts.append(Draft(list(prompt), own, cache))
    return drafts
