"""What crosses from the engine's thread to the event loop."""

import asyncio
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Protocol

from nanoserve.engine.request import RequestOutput


class Busy(Exception):
    """Too many requests; `retry_after` seconds from now is better."""

    def __init__(self, message: str, retry_after: float):
        super().__init__(message)
        self.retry_after = retry_after


class Stopped(Exception):
    """The engine takes no requests, now or ever again."""


class EngineError(Exception):
    """A request that was let in and cannot be answered."""


News = RequestOutput | EngineError


class Watch(Protocol):
    """Who is told of every request: Day 21 counts."""

    def asked(self, name: str) -> None: ...
    def told(self, news: Mapping[str, News]) -> None: ...


class Mailbox:
    """From a thread to a loop: the newest of each name, one wake-up.

    However long the loop is away, it holds one item a name. A `watch`
    is told of all of it, on the thread.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        wake: Callable,
        watch: Watch | None = None,
    ):
        self.loop, self.wake, self.watch = loop, wake, watch
        self.lock, self.newest = Lock(), {}

    def put(self, told: dict) -> None:
        """On the thread. `wake` will be called, once, on the loop."""
        if self.watch:
            self.watch.told(told)
        with self.lock:
            first = not self.newest
            self.newest.update(told)
        if first and told:
            self.loop.call_soon_threadsafe(self.wake)

    def take(self) -> dict:
        """On the loop: all that came since the last time."""
        with self.lock:
            newest, self.newest = self.newest, {}
        return newest


class Answer:
    """The outputs of one request, as they come: `async for` them.

    A slow reader gets the newest, which has all that came before it;
    the last is never left out. EngineError where there will be none.
    Whoever leaves early, by `async with`, by `aclose()` or by letting
    go of it, aborts the request; so does a cancelled wait.
    """

    def __init__(self, request_id: str, abort: Callable[[], None]):
        self.request_id, self.abort = request_id, abort
        self.news: News | None = None
        self.over = False  # nothing comes after `news`
        self.changed = asyncio.Event()

    def put(self, news: News) -> None:
        """On the loop: this is the newest."""
        if not self.over:
            self.news = news
            self.over = isinstance(news, Exception) or news.finished
            self.changed.set()

    def close(self) -> None:
        """Read no more of it. One that still runs is aborted."""
        if not self.over:
            self.over = True
            self.abort()
        self.news = None
        self.changed.set()

    def __aiter__(self) -> "Answer":
        return self

    async def __anext__(self) -> RequestOutput:
        while self.news is None:
            if self.over:
                raise StopAsyncIteration
            self.changed.clear()
            try:
                await self.changed.wait()
            except asyncio.CancelledError:
                self.close()
                raise
        news, self.news = self.news, None
        if isinstance(news, Exception):
            raise news
        return news

    async def last(self) -> RequestOutput:
        """All of it, once it has ended."""
        async for output in self:
            if output.finished:
                return output
        raise EngineError(f"{self.request_id} was left before its end")

    async def aclose(self) -> None:
        """Read no more of it. One that still runs is aborted."""
        self.close()

    async def __aenter__(self) -> "Answer":
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def __del__(self):
        self.close()
