"""Several requests in one pass of the model.

Built in the book: day13. Edit there, then run book/tangle.py.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch

from nanoserve.cache import KVCache
from nanoserve.generate import Generated, eos_ids, stream
from nanoserve.model import Llama
from nanoserve.sampling import Logprob, SamplingParams, logprobs_of, process, sample

Attend = Callable[..., torch.Tensor]  # q, k, v of a layer -> their mix


@dataclass(frozen=True)
class Part:
    """What one request has to read in a step.

    `ids`, the place in its text of the first of them, and its own
    `attend` for each layer.
    """

    ids: Sequence[int]
    start: int
    attends: Sequence[Attend]


@dataclass(frozen=True)
class Packed:
    """Parts behind one another in a row of T tokens.

    ids and positions are (1, T), as `Llama` takes them, and `attends`
    has one a layer. Part i lies at spans[i], (begin, end), and its last
    token at last[i]. What pads the row is in no span.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    attends: list[Attend]
    spans: list[tuple[int, int]]
    last: torch.Tensor


def cut(sizes: Sequence[int], attends: Sequence[Attend]) -> Attend:
    """An `attend` of a row of parts: each part's tokens go to its own."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        cuts = [x.split(list(sizes), 2) for x in (q, k, v)]
        parts = zip(attends, *cuts, strict=True)
        return torch.cat([own(*qkv) for own, *qkv in parts], 2)

    return attend


def check_parts(parts: Sequence[Part], multiple: int) -> None:
    """ValueError unless these can be packed."""
    if not parts:
        raise ValueError("there is no part to pack")
    if multiple < 1:
        raise ValueError(f"multiple must be 1 or more: {multiple}")
    layers = len(parts[0].attends)
    for i, part in enumerate(parts):
        if not len(part.ids):
            raise ValueError(f"part {i} has no ids: leave it out")
        if part.start < 0:
            raise ValueError(f"part {i} starts at {part.start}, before 0")
        if len(part.attends) != layers:
            raise ValueError(
                f"part {i} has {len(part.attends)} attends, part 0 has "
                f"{layers}: all must be of one model"
            )


def padding(n: int, layers: int) -> Part:
    """n tokens that nobody asked for; their mix is zero."""
    return Part([0] * n, 0, [lambda q, k, v: torch.zeros_like(q)] * layers)


def pack(
    parts: Sequence[Part],
    device: str | torch.device = "cpu",
    multiple: int = 1,
) -> Packed:
    """Parts in one row, padded to a multiple of so many tokens.

    ValueError for no part, one without ids or from a negative place,
    and for parts of different numbers of layers.
    """
    check_parts(parts, multiple)
    extra = -sum(len(part.ids) for part in parts) % multiple
    row = [*parts, padding(extra, len(parts[0].attends))]
    sizes = [len(part.ids) for part in row]
    ends = accumulate(sizes)
    spans = [(end - n, end) for n, end in zip(sizes, ends, strict=True)]
    ids = [i for part in row for i in part.ids]
    places = [part.start + i for part in row for i in range(len(part.ids))]
    layers = zip(*(part.attends for part in row), strict=True)
    last = [end - 1 for _, end in spans[:-1]]
    return Packed(
        torch.tensor([ids], device=device),
        torch.tensor([places], device=device),
        [cut(sizes, attends) for attends in layers],
        spans[:-1],
        torch.tensor(last, device=device),
    )


@torch.inference_mode()
def batch_logits(
    model: Llama,
    caches: Sequence[KVCache],
    ids: Sequence[Sequence[int]],
    multiple: int = 1,
) -> torch.Tensor:
    """Read ids[i] behind what caches[i] holds; scores (N, V) of the next.

    One pass for all, over any mixture of lengths. The rows of the pass,
    and those of the head, are padded to a `multiple`. ValueError where
    caches and ids differ in number, or one cache stands there twice.
    """
    if not len(ids) == len(caches) == len({id(c) for c in caches}):
        raise ValueError(f"{len(ids)} requests need as many caches, each its own")
    parts = [
        Part(new, cache.length, cache.attends()) for new, cache in zip(ids, caches, strict=True)
    ]
    packed = pack(parts, model.embed.weight.device, multiple)
    x = model(packed.ids, packed.positions, packed.attends)  # (1, T, C)
    for cache, new in zip(caches, ids, strict=True):
        cache.advance(len(new))
    N = len(parts)
    again = packed.last[:1].expand(-N % multiple)  # rows to pad the head
    return model.logits(x[0, torch.cat([packed.last, again])])[:N]


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


def settle(model: Llama, prompt: Sequence[int], params: SamplingParams) -> SamplingParams:
    """Params with nothing left open: the ends, a seed, max_tokens.

    ValueError as from `stream`.
    """
    stream(model, prompt, params)  # refuses, and does nothing else yet
    eos = () if params.ignore_eos else eos_ids(model.config)
    seed = secrets.randbits(63) if params.seed is None else params.seed
    most = params.max_tokens
    if most is None:
        context = model.config.max_position_embeddings
        most = max(1, context - len(prompt))
    stops = (*params.stop_token_ids, *eos)
    return replace(params, seed=seed, max_tokens=most, stop_token_ids=stops)


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
