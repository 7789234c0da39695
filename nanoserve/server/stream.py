"""Answers on their way out: what is sent, when, and for how long.

Built in the book: day20. Edit there, then run book/tangle.py.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from nanoserve.engine.request import RequestOutput
from nanoserve.server.answer import Answer, EngineError
from nanoserve.server.errors import shape
from nanoserve.server.writer import Writer

DONE = b"data: [DONE]\n\n"


def frame(data: dict[str, Any]) -> bytes:
    """An event of a stream: a line of data, and an empty one.

    Everything but ASCII is escaped: a U+2028 in a text is the end of a
    line to some clients, and half of a frame is no JSON.
    """
    return f"data: {json.dumps(data)}\n\n".encode()


Said = AsyncIterator[tuple[int, RequestOutput]]


async def together(answers: Sequence[Answer]) -> Said:
    """The number of an answer and what it is now, whichever has news."""
    if len(answers) == 1:  # as most are: no task for each token
        async for output in answers[0]:
            yield 0, output
        return
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
