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
        self.told = [RequestOutput("", [], [])] * len(forms)
        options = asked.stream_options
        self.counts = options is not None and options.include_usage
        self.head = {
            "id": forms[0].prefix + uuid.uuid4().hex,
            "object": forms[0].chunk if asked.stream else forms[0].whole,
            "created": int(time.time()),
            "model": model,
        }

    def chunk(self, *choices: dict, **more: Any) -> dict:
        """Head and choices; usage is null in all chunks but its own."""
        empty = {"usage": None} if self.counts else {}
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


Said = AsyncIterator[tuple[int, RequestOutput]]


async def together(answers: Sequence[Answer]) -> Said:
    """The number of an answer and what it is now, whichever has news."""
    waits = {asyncio.ensure_future(anext(a)): i for i, a in enumerate(answers)}
    first = asyncio.FIRST_COMPLETED
    try:
        while waits:
            done, _ = await asyncio.wait(waits, return_when=first)
            for task in done:
                i, output = waits.pop(task), task.result()
                if not output.finished:
                    more = anext(answers[i])
                    waits[asyncio.ensure_future(more)] = i
                yield i, output
    finally:
        for task in waits:
            task.cancel()


async def frames(writer: Writer, answers: Sequence[Answer]) -> AsyncIterator[bytes]:
    """The events of a stream, to its last one, whatever happens."""
    for chunk in writer.start():
        yield frame(chunk)
    try:
        async for i, output in together(answers):
            for chunk in writer.push(i, output):
                yield frame(chunk)
        for chunk in writer.end():
            yield frame(chunk)
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

    first = asyncio.FIRST_COMPLETED
    watch, task = map(asyncio.ensure_future, (gone(), work))
    try:
        await asyncio.wait({watch, task}, return_when=first)
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
                sending = self.stream_response(send)
                await while_there(receive, sending)
            finally:
                await self.body_iterator.aclose()
