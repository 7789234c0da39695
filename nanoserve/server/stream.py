"""Answers on their way out: what is sent, when, and for how long.

Built in the book: day20. Edit there, then run book/tangle.py.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from nanoserve.engine.request import RequestOutput
from nanoserve.server.answer import Answer, EngineError
from nanoserve.server.errors import shape
from nanoserve.server.wire import usage

DONE = b"data: [DONE]\n\n"


def frame(data: dict[str, Any]) -> bytes:
    """An event of a stream: a line of data, and an empty one.

    Everything but ASCII is escaped: a U+2028 in a text is the end of a
    line to some clients, and half of a frame is no JSON.
    """
    return f"data: {json.dumps(data)}\n\n".encode()


class Writer:
    """What is sent of some answers, as a ladder of chunks or whole.

    A choice begins, gets what is new of it, and ends with its reason; in
    the end comes the usage of all, if it is wanted. No network is here.
    """

    def __init__(self, model: str, forms: Sequence[Any], prompts: Sequence, asked: Any):
        self.forms, self.prompts, self.asked = forms, prompts, asked
        self.told = [RequestOutput("", [], [])] * len(forms)
        options = asked.stream_options
        self.counts = options is not None and options.include_usage
        self.head = {
            "id": forms[0].prefix + uuid.uuid4().hex,
            "object": forms[0].chunk if asked.stream else forms[0].whole,
            "created": int(time.time()),
            "model": model,
        }

    def start(self) -> Iterator[dict]:
        """A chunk for each choice of a chat: who speaks."""
        for i, form in enumerate(self.forms):
            own, shared = self.prompt(i)
            if own or form.opening():
                begin = (form.opening() or form.piece("")) | own
                yield self.chunk(self.choice(i, begin), **shared)

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

    def whole(self) -> dict:
        """All of it, as it is sent to who wants no stream."""
        choices, shared = [], {}
        for i, output in enumerate(self.told):
            own, shared = self.prompt(i)
            last = {"finish_reason": output.finish_reason}
            body = self.forms[i].message(output.text) | self.details(i, 0)
            choices.append(self.choice(i, body | own | last))
        counted = usage(self.told, self.asked.n)
        return self.head | {"choices": choices, "usage": counted} | shared

    def chunk(self, *choices: dict, **more: Any) -> dict:
        """Head and choices; the usage is null in all chunks but its own."""
        empty = {"usage": None} if self.counts else {}
        return self.head | {"choices": list(choices)} | empty | more

    def choice(self, i: int, body: dict) -> dict:
        """A choice, with null for what it does not have."""
        return {"index": i, "logprobs": None, "finish_reason": None} | body

    def details(self, i: int, seen: int) -> dict:
        """Ids and logprobs of the tokens from `seen` on, where asked for."""
        output, told = self.told[i], {}
        ids = output.token_ids[seen:]
        if self.asked.return_token_ids:
            told["token_ids"] = ids
        if ids and output.logprobs is not None:
            rows = output.logprobs[seen:]
            told["logprobs"] = self.forms[i].logprobs(ids, rows)
        return told

    def prompt(self, i: int) -> tuple[dict, dict]:
        """The prompt's ids where asked for: for a choice, for them all."""
        wanted = self.asked.return_token_ids
        return self.forms[i].prompt(self.prompts[i]) if wanted else ({}, {})


async def together(answers: Sequence[Answer]) -> AsyncIterator[tuple[int, RequestOutput]]:
    """The number of an answer and what it is now, whichever has news."""
    waits = {asyncio.ensure_future(anext(a)): i for i, a in enumerate(answers)}
    try:
        while waits:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                i, output = waits.pop(task), task.result()
                if not output.finished:
                    waits[asyncio.ensure_future(anext(answers[i]))] = i
                yield i, output
    finally:
        for task in waits:
            task.cancel()


async def frames(writer: Writer, answers: Sequence[Answer]) -> AsyncIterator[bytes]:
    """The events of a stream, to its last one, whatever happens."""
    yield b"".join(map(frame, writer.start()))
    try:
        async for i, output in together(answers):
            yield b"".join(map(frame, writer.push(i, output)))
        yield b"".join(map(frame, writer.end()))
    except EngineError as error:  # the 200 is long gone
        yield frame(shape(500, str(error), None, None))
    yield DONE


async def while_there(receive: Receive, work: Coroutine) -> bool:
    """Do `work` as long as the client is there: whether it was done.

    Who has hung up wants no more of it: it is cancelled, and has ended
    when this returns.
    """

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    watch, task = asyncio.ensure_future(gone()), asyncio.ensure_future(work)
    try:
        await asyncio.wait({watch, task}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return False
        task.result()  # its error, if it has one
        return True
    finally:
        watch.cancel()
        task.cancel()
        await asyncio.wait({watch, task})


class Events(StreamingResponse):
    """A stream of events, for as long as somebody reads it.

    What is in `held` ends with it: answers that nobody reads.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], held: AsyncExitStack):
        # Proxies and caches keep nothing back.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, headers=headers)
        self.held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.held:
            try:
                await while_there(receive, self.stream_response(send))
            finally:
                await self.body_iterator.aclose()
