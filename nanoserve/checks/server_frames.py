"""Events of a stream without a network, its fixtures, and clients who hang up: Day 20."""

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.server_local import apart
from nanoserve.engine.request import RequestOutput
from nanoserve.server.answer import EngineError
from nanoserve.server.protocol import StreamOptions
from nanoserve.server.stream import DONE, frame, frames, while_there
from nanoserve.server.wire import Chat
from nanoserve.server.writer import Writer

PROMPT = [7, 8, 9]


def output(text: str, ids: int, reason: str | None = None) -> RequestOutput:
    """An answer with so many ids."""
    return RequestOutput("r", PROMPT, list(range(ids)), text, reason is not None, reason, None, 2)


# A token at a time; one that is held back; two at once, for a slow reader; a tail at the end.
FIRST = [output("A", 1), output("A", 2), output("A bc", 4), output("A bcd", 5, "stop")]
SECOND = [output("x", 1), output("xy", 2, "length")]


def asked(stream: bool = True, usage: bool = False, ids: bool = False, n: int = 1) -> Any:
    """What a request said of the form of its answer."""
    options = StreamOptions(include_usage=True) if usage else None
    return SimpleNamespace(stream=stream, stream_options=options, return_token_ids=ids, n=n)


def check_frames() -> None:
    """An event is a line and an empty one, whatever is in it; and the last one always comes."""
    for text in (
        "plain",
        "two\nlines\r\n",
        "\u2028, \u2029 and \x85",
        "世界 🙂",
        "data: [DONE]\n\n",
    ):
        got = attempt("frame", frame, {"text": text})
        holds("a frame must be bytes", isinstance(got, bytes), f"it is {got!r:.60}")
        lines = got.decode().splitlines(keepends=True)
        agree(f"lines of the frame of {text!r}", [line[-1:] for line in lines], ["\n", "\n"])
        agree("the empty line", lines[1], "\n")
        holds("a frame must begin with 'data: '", lines[0].startswith("data: "), lines[0])
        agree("what is in it", json.loads(lines[0][6:]), {"text": text})

    async def said(*outputs: Any) -> AsyncIterator[RequestOutput]:
        for each in outputs:
            if isinstance(each, Exception):
                raise each
            yield each

    async def all_of(*outputs: Any) -> list[bytes]:
        writer = Writer("m", [Chat(None, None)], [PROMPT], asked(usage=True))
        return [part async for part in frames(writer, [said(*outputs)])]

    async def left(n: int) -> int:
        writer = Writer("m", [Chat(None, None) for _ in range(n)], [PROMPT] * n, asked(n=n))
        stream = frames(writer, [never() for _ in range(n)])
        for _ in range(n):
            await anext(stream)  # who speaks; the next one waits
        waits = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        waits.cancel()
        await asyncio.wait([waits])
        await stream.aclose()
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    async def never() -> AsyncIterator[RequestOutput]:
        await asyncio.Event().wait()
        yield FIRST[0]

    for n in (1, 2):
        said_of = f"tasks when a stream of {n} was left: this one, its limit"
        agree(said_of, apart(left(n)), 2)
    got = b"".join(attempt("frames", apart, all_of(*FIRST)))
    events = got.split(b"\n\n")
    agree("events of a stream", len(events), 5 + 1 + 1 + 1)
    agree("the last event, and nothing behind it", events[-2:], [DONE.strip(), b""])
    got = b"".join(
        attempt("a stream that fails", apart, all_of(FIRST[0], EngineError("out of it")))
    )
    *_, error, last, _ = got.split(b"\n\n")
    agree("the last event of a stream that failed", last, DONE.strip())
    told = json.loads(error.removeprefix(b"data: ")).get("error", {})
    agree("what a stream that fails says", told.get("message"), "out of it")


async def check_watch() -> None:
    """Work that ends, that fails, and that nobody waits for any more."""
    hung_up, ended = asyncio.Event(), []

    async def receive() -> dict:
        if not ended:
            ended.append("a body comes first")
            return {"type": "http.request", "body": b""}
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def work(seconds: float, error: Exception | None = None) -> None:
        try:
            await asyncio.sleep(seconds)
            if error:
                raise error
            ended.append("done")
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.append("cancelled")
            raise

    agree("work that is done", await while_there(receive, work(0.01)), True)
    try:
        await while_there(receive, work(0, KeyError("x")))
        raise AssertionError("an error of the work must be raised")
    except KeyError:
        pass
    asyncio.get_running_loop().call_later(0.01, hung_up.set)
    agree("work that nobody waits for", await while_there(receive, work(3)), False)
    agree("what has ended when it returns", ended[1:], ["done", "cancelled"])
    holds("nothing may be left running", len(asyncio.all_tasks()) <= 2)  # this, and wait_for's
