"""The load test's client against servers that answer from a script, on this machine: Day 21.

What they wait for are each other's requests, so no clock decides.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from nanoserve.bench.load import Heard, offer
from nanoserve.checks.common import agree, holds
from nanoserve.checks.load_numbers import event
from nanoserve.checks.loops import on_a_loop

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
Answer = Callable[[dict, asyncio.StreamWriter], Awaitable[None]]


def stream(ids: list[int], reason: str | None = "length") -> bytes:
    """A whole answer: a chunk for each id, then the end, the usage and the last word."""
    events = [event([i]) for i in ids] + [event([], reason)]
    usage = {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": len(ids)}}
    events += [b"data: " + json.dumps(usage).encode(), b"data: [DONE]"]
    return b"".join(line + b"\n\n" for line in events)


@asynccontextmanager
async def scripted(answer: Answer) -> AsyncIterator[str]:
    """The address of a server that lets `answer(body, writer)` write what it likes."""
    tasks = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
            body = json.loads(await reader.readexactly(length))
            body["key"] = b"Bearer k" in head
            await answer(body, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        if tasks:
            await asyncio.wait(tasks)


def check_client() -> None:
    """Open, not closed; every way to fail; and streams cut at every fourth byte."""
    for what, main in (
        ("a client that is late", late),
        ("a client that is early", early),
        ("answers that fail", failing),
        ("a stream in pieces", pieces),
        ("requests that wait for each other", together),
    ):
        on_a_loop(what, main, debug=False)


async def together() -> None:
    """Nobody is answered before all are there: a client that waits for an answer waits for ever.

    They are more than the 100 connections that httpx's pool has, unless it is told otherwise.
    """
    many, there, all_there = 110, [], asyncio.Event()

    async def answer(body: dict, writer: asyncio.StreamWriter) -> None:
        there.append(body["n"])
        if len(there) == many:
            all_there.set()
        await all_there.wait()
        writer.write(OK + stream([body["n"], 5]))

    async with scripted(answer) as url:
        bodies = [{"n": n} for n in range(many)]
        heard = await offer(url, bodies, [0.0] * many, 60.0, key="k")
    agree("ids, each request's own", [h.ids for h in heard], [[n, 5] for n in range(many)])
    agree("failures", {h.failure for h in heard}, {""})


async def failing() -> None:
    """A status, half a stream, no end, an error in it, no JSON, no tokens, no answer in time."""
    half = stream([1, 2, 3])[:150]
    never = asyncio.Event()
    said = {
        "whole": OK + stream([1, 2]),
        "status": b"HTTP/1.1 429 Too Many\r\nContent-Length: 2\r\n\r\n{}",
        "half": OK + half,
        "reset": b"",
        "length": OK.replace(b"Connection", b"Content-Length: 999\r\nConnection") + half,
        "error": OK + half[: half.rindex(b"\n\n")] + b'\n\ndata: {"error": {"message": "x"}}\n\n',
        "empty": OK + stream([]),
        "json": OK + b"data: {]\n\n",
        "odd": OK + b'data: {"object": "x"}\n\n',
        "null": OK + b'data: {"choices": [null]}\n\n',
    }

    async def answer(body: dict, writer: asyncio.StreamWriter) -> None:
        if body["as"] == "never":
            await never.wait()
            return
        writer.write(said[body["as"]])

    async with scripted(answer) as url:
        names = [*said, "never"]
        heard = await offer(url, [{"as": name} for name in said], [0.0] * len(said), 60.0)
        heard += await offer(url, [{"as": "never"}], [0.0], 0.05)
        never.set()
    found = dict(zip(names, heard, strict=True))
    agree("one that has all of it", (found["whole"].failure, found["whole"].ids), ("", [1, 2]))
    agree("one that was refused", found["status"].failure, "status 429")
    agree("one too slow", found["never"].failure, "TimeoutError")
    for name in names[1:]:
        holds(
            f"an answer that is no whole one ({name}) must be a failure", bool(found[name].failure)
        )
    holds("what came of half a stream must be kept", len(found["half"].ids) > 0)
    ended = [h.ended >= h.sent >= h.due for h in heard]
    holds("each must be due, then sent, then ended", all(ended), str(ended))


async def pieces() -> None:
    """Cut anywhere, and a text with letters at which some break lines."""
    choice = {"token_ids": [9], "finish_reason": None, "text": "\u2028\x85"}
    text = json.dumps({"choices": [choice]}, ensure_ascii=False)
    whole = b"data: " + text.encode() + b"\n\n" + stream([1, 2])

    async def answer(body: dict, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + whole[: body["cut"]])
        await writer.drain()
        await asyncio.sleep(0.002)  # or both arrive as one
        writer.write(whole[body["cut"] :])

    async with scripted(answer) as url:
        cuts = range(1, 90, 4)
        heard = await offer(url, [{"cut": n} for n in cuts], [0.0] * len(cuts), 30.0)
    for cut, each in zip(cuts, heard, strict=True):
        got = each.ids, each.reason, each.prompt_tokens, each.failure
        agree(f"a stream cut after byte {cut}", got, ([9, 1, 2], "length", 2, ""))


async def late() -> None:
    """A clock that a slow client might see: time counts from when the request was due."""
    ticks = iter(range(1, 1000))

    async def answer(body: dict, writer: asyncio.StreamWriter) -> None:
        holds("the key must be sent", body["key"])
        writer.write(OK + stream([1]))

    async with scripted(answer) as url:
        clock = lambda: float(next(ticks))  # noqa: E731
        (heard,) = await offer(url, [{}], [0.5], 30.0, key="k", clock=clock)
    times(heard)


async def early() -> None:
    """Nobody asks before it is due, nor by way of a proxy that the environment names."""

    async def answer(body: dict, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + stream([1]))

    name = "HTTP_PROXY"
    before = os.environ.get(name)
    os.environ[name] = "http://127.0.0.1:9"  # where nobody is
    try:
        async with scripted(answer) as url:
            heard = await offer(url, [{}] * 3, [0.0, 0.03, 0.06], 60.0)
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
    agree("failures of three", {h.failure for h in heard}, {""})
    for each in heard:
        ahead = each.due - each.sent
        holds("a request must be sent when it is due", ahead < 1e-3, f"{ahead:.3f} s before")


def times(heard: Heard) -> None:
    """One tick for the start, one before the wait, then the send, then the lines."""
    agree("due", heard.due, 1.5)
    holds("sent must be later than due", heard.sent > heard.due)
    agree("to the first token", heard.first, heard.times[0] - 1.5)
