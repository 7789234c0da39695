"""Texts in, texts out: the engine for a list of prompts.

Built in the book: day16. Edit there, then run book/tangle.py.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral
from os import PathLike
from typing import Any

from nanoserve.engine.asked import check_device, check_list, check_names, check_params
from nanoserve.engine.engine import Engine
from nanoserve.engine.request import RequestOutput
from nanoserve.sampling import SamplingParams

PROMPTS = "a text, a list of ids, or a list of these"
CHATS = "a list of messages, or a list of such lists"
Params = SamplingParams | Sequence[SamplingParams] | None


def one_each(prompts: Sequence, params: Params) -> Sequence[SamplingParams]:
    """Params for each prompt. ValueError for others, or too few."""
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * len(prompts)
    check_list("params are", params, "SamplingParams, or a list of them")
    for one in params:
        check_params(one)
    if len(params) != len(prompts):
        raise ValueError(
            f"{len(prompts)} prompts and {len(params)} params: wanted one for all, or one for each"
        )
    return params


def is_ids(prompt: Sequence) -> bool:
    """Whether this is one prompt's ids, and no list of prompts."""
    return len(prompt) > 0 and all(isinstance(i, Integral) for i in prompt)


def engine_on(device: str) -> Callable[..., Engine]:
    """What makes an engine there."""
    check_device(device)
    if str(device).startswith("cpu"):
        return Engine
    from nanoserve.engine.gpu import GPUEngine  # it needs its extra

    return partial(GPUEngine, device=device)


class LLM:
    """An engine of its own, run until a list of prompts is answered.

    `path` is a checkpoint's folder or name; the settings are Engine's,
    on a GPU (device="cuda") those of GPUEngine.
    """

    def __init__(self, path: str | PathLike, device: str = "cpu", **settings: Any):
        engine = engine_on(device)
        check_names(engine, device, settings)
        self.engine = engine(path, **settings)
        self.numbers = itertools.count()

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's. ValueError where it has none."""
        if self.engine.tokenizer is None:
            raise ValueError("the checkpoint has no tokenizer.json: pass lists of ids")
        return self.engine.tokenizer

    def generate(
        self,
        prompts: str | Sequence[str | Sequence[int]],
        params: Params = None,
    ) -> list[RequestOutput]:
        """The answers, in the order of the prompts: texts, or ids.

        `params` is one for all or one for each. ValueError, before any
        work, where one of the prompts is refused.
        """
        if not isinstance(prompts, str):
            check_list("the prompts are", prompts, PROMPTS)
        if isinstance(prompts, str) or is_ids(prompts):
            prompts = [prompts]
        ids = [self.tokenizer.encode(one) if isinstance(one, str) else one for one in prompts]
        return self.answers(ids, params)

    def chat(self, conversations: Sequence[Any], params: Params = None) -> list[RequestOutput]:
        """The next message of each conversation, a list of messages.

        A message is {"role": ..., "content": ...}; one conversation may
        stand alone. The template's own end of a turn ends an answer too.
        """
        check_list("the conversations are", conversations, CHATS)
        if conversations and isinstance(conversations[0], dict):
            conversations = [conversations]
        ids = [self.tokenizer.chat(messages) for messages in conversations]
        ends = self.tokenizer.turn_ends()
        params = [
            p if p.ignore_eos else replace(p, stop_token_ids=(*p.stop_token_ids, *ends))
            for p in one_each(ids, params)
        ]
        return self.answers(ids, params)

    def answers(self, prompts: Sequence[Sequence[int]], params: Params) -> list[RequestOutput]:
        """Run the engine until all of these have ended."""
        wanted = one_each(prompts, params)
        names = [f"llm-{next(self.numbers)}" for _ in prompts]
        ended = dict.fromkeys(names)
        try:
            for i, name in enumerate(names):
                self.add(i, name, prompts[i], wanted[i])
            while None in ended.values():
                for output in self.step():
                    ended[output.request_id] = output
        finally:  # after an error or Ctrl-C nothing may go on
            for name in names:
                self.engine.abort(name)
        return [ended[name] for name in names]

    def step(self) -> list[RequestOutput]:
        """What ended in a step. RuntimeError for one without effect."""
        before = self.reached()
        told = self.engine.step(only_ended=True)
        if not told and self.reached() == before:
            raise RuntimeError(
                f"a step did nothing, and {len(before)} requests have not "
                "ended: it would go on so for ever. Somebody who runs or "
                "waits must have a share in what `schedule` plans, and "
                "`step` must tell who has ended"
            )
        return told

    def reached(self) -> list[tuple[int, int]]:
        """How many tokens of each request are computed, and known."""
        requests = self.engine.requests.values()
        return [(r.computed, len(r.tokens)) for r in requests]

    def add(self, i: int, name: str, ids: Sequence[int], params: SamplingParams) -> None:
        """Let a prompt wait. ValueError says which one was refused."""
        try:
            self.engine.add_request(name, ids, params)
        except ValueError as error:
            raise ValueError(f"prompt {i}: {error}") from None
