"""Answers as chunks: what each says that the one before has not.

Built in the book: day20. Edit there, then run book/tangle.py.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from nanoserve.engine.request import RequestOutput
from nanoserve.server.wire import usage


class Choices:
    """Some answers to one request, and what their chunks have in common.

    `forms` has a form for each, `prompts` the ids that it goes on from;
    `asked` is the request: stream, stream_options, return_token_ids, n.
    """

    def __init__(
        self,
        model: str,
        forms: Sequence[Any],
        prompts: Sequence[Sequence[int]],
        asked: Any,
    ):
        self.forms, self.prompts, self.asked = forms, prompts, asked
        self.told = [RequestOutput("", [*ids], []) for ids in prompts]
        options = asked.stream_options
        self.counts = options is not None and options.include_usage
        self.always = self.counts and options.continuous_usage_stats
        self.head = {
            "id": forms[0].prefix + uuid.uuid4().hex,
            "object": forms[0].chunk if asked.stream else forms[0].whole,
            "created": int(time.time()),
            "model": model,
        }

    def chunk(self, *choices: dict, **more: Any) -> dict:
        """Head and choices; usage is null in all chunks but its own,
        unless it is wanted, so far, in all of them.
        """
        empty = {"usage": None} if self.counts else {}
        if self.always:
            empty = {"usage": usage(self.told, self.asked.n)}
        return self.head | {"choices": list(choices)} | empty | more

    def choice(self, i: int, body: dict) -> dict:
        """A choice, with null for what it does not have."""
        none = {"logprobs": None, "finish_reason": None}
        return {"index": i} | none | body

    def details(self, i: int, seen: int) -> dict:
        """Ids and logprobs of the tokens from `seen` on, if asked for."""
        output, more = self.told[i], {}
        ids = output.token_ids[seen:]
        if self.asked.return_token_ids:
            more["token_ids"] = ids
        if ids and output.logprobs is not None:
            rows = output.logprobs[seen:]
            more["logprobs"] = self.forms[i].logprobs(ids, rows)
        return more

    def prompt(self, i: int) -> tuple[dict, dict]:
        """The prompt's ids, if asked for: in the choice, or around it."""
        if not self.asked.return_token_ids:
            return {}, {}
        return self.forms[i].prompt(self.prompts[i])

    def whole(self) -> dict:
        """All of it, as it is sent to who wants no stream."""
        choices, around = [], {}
        for i, output in enumerate(self.told):
            own, around = self.prompt(i)
            last = {"finish_reason": output.finish_reason}
            body = self.forms[i].message(output.text) | self.details(i, 0)
            choices.append(self.choice(i, body | own | last))
        counted = usage(self.told, self.asked.n)
        return self.head | {"choices": choices, "usage": counted} | around


class Writer(Choices):
    """Some answers as a ladder of chunks. No network is here."""

    def start(self) -> Iterator[dict]:
        """A chunk for each choice of a chat: who speaks."""
        for i, form in enumerate(self.forms):
            own, around = self.prompt(i)
            if own or form.opening():
                begin = (form.opening() or form.piece("")) | own
                yield self.chunk(self.choice(i, begin), **around)

    def push(self, i: int, output: RequestOutput) -> Iterator[dict]:
        """What is new of choice i, and in a chunk of its own its end."""
        old, self.told[i] = self.told[i], output
        text, form = output.text[len(old.text) :], self.forms[i]
        more = self.details(i, len(old.token_ids))
        if text or any(more.values()):
            yield self.chunk(self.choice(i, form.piece(text) | more))
        if output.finished:
            last = {"finish_reason": output.finish_reason}
            yield self.chunk(self.choice(i, form.piece("") | last))

    def end(self) -> Iterator[dict]:
        """The usage of all, in a chunk without choices."""
        if self.counts:
            yield self.chunk(usage=usage(self.told, self.asked.n))
