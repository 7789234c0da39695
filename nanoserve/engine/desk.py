"""Where requests come in, are refused, and let go.

Built in the book: day16. Edit there, then run book/tangle.py.
"""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from nanoserve.checkpoints import checkpoint_path
from nanoserve.cpu import make_fast
from nanoserve.engine.asked import check_asked, check_model, check_settings, new_pool
from nanoserve.engine.audit import audit
from nanoserve.engine.blocks import BlockManager
from nanoserve.engine.decode import BatchedPool
from nanoserve.engine.request import Request, RequestOutput
from nanoserve.engine.runner import Runner
from nanoserve.engine.scheduler import Scheduler
from nanoserve.generate import check_prompt, check_stops, eos_ids, stop_ids
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams

POOL_BYTES = 2**29  # of the pool, where num_blocks is not given


def blocks_that_fit(model: Llama, block_size: int, rows: int) -> int:
    """As many as POOL_BYTES hold, and no more than `rows` can fill."""
    config, dtype = model.config, model.embed.weight.dtype
    each = config.kv_cache_bytes_per_token(dtype) * block_size
    most = rows * -(-config.max_position_embeddings // block_size)
    return max(1, min(most, POOL_BYTES // each))


def new_scheduler(caching: bool, num_blocks: int, block_size: int, *limits: int) -> Scheduler:
    """With a block manager, and Day 18's cache of prefixes, or none."""
    if not caching:
        return Scheduler(BlockManager(num_blocks, block_size), *limits)
    from nanoserve.engine.prefix import CachingScheduler, PrefixCache

    return CachingScheduler(PrefixCache(num_blocks, block_size), *limits)


def opened(model: Llama | str | PathLike) -> tuple[Llama, Any, tuple]:
    """A model, its tokenizer or None, and the ids that end a text."""
    check_model(model)
    if not isinstance(model, str | PathLike):
        return model, None, eos_ids(model.config)
    path = checkpoint_path(model)
    tokenizer, model = None, Llama.from_pretrained(path)
    make_fast(model)  # as it was, where that cannot be
    if (path / "tokenizer.json").is_file():
        from nanoserve.text import Tokenizer  # it needs its extra

        tokenizer = Tokenizer.from_pretrained(path)
    return model, tokenizer, stop_ids(path)


def new_detokenizer(tokenizer: Any, stop: Sequence[str]) -> Any:
    """What makes a text of ids; None where there is no tokenizer."""
    if tokenizer is None:
        return None
    from nanoserve.text import Detokenizer

    return Detokenizer(tokenizer, stop)


class Desk:
    """Where requests come in, and are let go."""

    def __init__(
        self,
        model: Llama | str | PathLike,
        *,
        block_size: int = 16,
        num_blocks: int | None = None,
        max_num_seqs: int = 16,
        max_num_batched_tokens: int = 512,
        enable_prefix_caching: bool = True,
    ):
        check_settings(
            enable_prefix_caching,
            block_size=block_size,
            num_blocks=1 if num_blocks is None else num_blocks,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
        )
        self.model, self.tokenizer, self.eos_ids = opened(model)
        if num_blocks is None:
            rows = max_num_seqs
            num_blocks = blocks_that_fit(self.model, block_size, rows)
        config, weight = self.model.config, self.model.embed.weight
        kind = weight.dtype, weight.device
        size = num_blocks, block_size
        pool = new_pool(BatchedPool, config, *size, *kind)
        limits = max_num_seqs, max_num_batched_tokens
        scheduler = new_scheduler(enable_prefix_caching, num_blocks, block_size, *limits)
        # The last token of a text is never read: it needs no place.
        room = num_blocks * block_size + 1
        self.furnish(Runner(self.model, pool), scheduler, room)

    def furnish(self, runner: Any, scheduler: Scheduler, room: int) -> None:
        """What does the work, for texts of `room` tokens at most."""
        self.runner, self.scheduler = runner, scheduler
        context = self.model.config.max_position_embeddings
        self.max_model_len = min(context, room)
        self.requests: dict[str, Request] = {}  # that have not ended
        self.texts: dict[str, Any] = {}  # a Detokenizer for each of them
        self.aborted: dict[str, RequestOutput] = {}  # to be told of

    def add_request(
        self,
        request_id: str,
        prompt_ids: Sequence[int],
        params: SamplingParams | None = None,
        cache_salt: str | None = None,
    ) -> None:
        """Let a request wait. ValueError, at once, if it can never run.

        max_tokens None is as much as the context and the pool hold.
        Requests with different salts share no blocks.
        """
        if request_id in self.requests:
            taken = f"request id {request_id!r} is in use"
            raise ValueError(f"{taken}: give another one")
        params = self.settled(prompt_ids, params or SamplingParams())
        ids = tuple(map(int, prompt_ids))
        request = Request(request_id, ids, params, cache_salt)
        text = new_detokenizer(self.tokenizer, params.stop)
        self.scheduler.add(request)  # may refuse it, as all above
        self.requests[request_id] = request
        if text is not None:
            self.texts[request_id] = text
        self.aborted.pop(request_id, None)  # a namesake, long gone

    def settled(self, prompt_ids: Sequence[int], params: SamplingParams) -> SamplingParams:
        """The params with nothing left open, or ValueError."""
        check_asked(prompt_ids, params)
        most = params.max_tokens
        if most is None:
            most = max(1, self.max_model_len - len(prompt_ids))
        check_prompt(self.model.config, prompt_ids, most)
        if params.stop and self.tokenizer is None:
            what = "stop texts need a checkpoint with a tokenizer"
            raise ValueError(f"{what}: pass stop_token_ids instead")
        ends = () if params.ignore_eos else self.eos_ids
        if params.stop:  # no text shows a special token's name
            ends = (*ends, *self.tokenizer.called(params.stop))
        seed = secrets.randbits(63) if params.seed is None else params.seed
        stops = (*params.stop_token_ids, *ends)
        params = replace(params, max_tokens=most, stop_token_ids=stops, seed=seed)
        return check_stops(self.model.config, params)

    def abort(self, request_id: str) -> bool:
        """End a request; the next step tells of it. False: none runs."""
        if (request := self.requests.get(request_id)) is None:
            return False
        self.scheduler.finish(request, "abort")
        self.aborted[request_id] = self.output(request)
        return True

    def output(self, request: Request) -> RequestOutput:
        """All of a request so far; what has ended is forgotten here."""
        ended = request.finish_reason is not None
        if ended:
            del self.requests[request.request_id]
            self.texts.pop(request.request_id, None)
        asked = request.params.logprobs is not None
        return RequestOutput(
            request.request_id,
            list(request.prompt_ids),
            request.output_ids,
            request.text,
            ended,
            request.finish_reason,
            list(request.logprobs) if asked else None,
            request.cached or 0,
        )

    def has_unfinished(self) -> bool:
        """Whether a request waits or runs."""
        return bool(self.requests)

    @property
    def num_free_blocks(self) -> int:
        """Blocks of the pool that nobody holds."""
        return self.scheduler.blocks.num_free

    def audit(self) -> None:
        """AssertionError where the books disagree."""
        audit(self.scheduler)
        queued = {*self.scheduler.running, *self.scheduler.waiting}
        if queued != {*self.requests.values()}:
            raise AssertionError("the queues and the requests disagree")
        if not self.texts.keys() <= self.requests.keys():
            raise AssertionError("a text of a request that has ended")
