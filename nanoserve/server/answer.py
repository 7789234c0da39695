"""What crosses from the engine's thread to the event loop.

Built in the book: day19. Edit there, then run book/tangle.py.
"""

import asyncio
from collections.abc import Callable
from threading import Lock

from nanoserve.engine.request import RequestOutput


class Busy(Exception):
    """Too many requests: come again in `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float):
        super().__init__(message)
        self.retry_after = retry_after


class Stopped(Exception):
    """The engine takes no requests, now or ever again."""


class EngineError(Exception):
    """A request that was let in and cannot be answered."""


News = RequestOutput | EngineError


def is_last(news: News) -> bool:
    """Whether a request is told nothing after this."""
    return isinstance(news, Exception) or news.finished


class Watch:
    """Who else is told of all requests: nobody, until Day 21 counts."""

    def asked(self, name: str) -> None:
        """On the loop: this one is let in."""

    def told(self, news: dict[str, News]) -> None:
        """On the thread: what a step has for each."""


class Mailbox:
    """From a thread to a loop: the newest of each name, one wake-up.

    However long the loop is away, it holds one item a name.
    """

    def __init__(self, wake: Callable[[], None]):
        self.wake = wake  # called on the loop
        self.loop: asyncio.AbstractEventLoop | None = None
        self.lock, self.newest = Lock(), {}
        self.watch = Watch()

    def put(self, told: dict[str, News]) -> None:
        """On the thread: the loop will be woken, once for many."""
        self.watch.told(told)
        with self.lock:
            first = not self.newest
            self.newest.update(told)
        if first and told:
            self.loop.call_soon_threadsafe(self.wake)

    def take(self) -> dict[str, News]:
        """On the loop: all that came since the last time."""
        with self.lock:
            newest, self.newest = self.newest, {}
        return newest


class Slot:
    """The newest of a stream, for its reader: it holds one item."""

    def __init__(self):
        self.news: News | None = None  # not read yet
        self.over = False  # nothing comes after `news`
        self.changed = asyncio.Event()

    def put(self, news: News) -> None:
        """What was not read by now is out of date."""
        if not self.over:
            self.news, self.over = news, is_last(news)
            self.changed.set()

    async def get(self) -> News | None:
        """The newest, as soon as it is new; None after the last."""
        while self.news is None and not self.over:
            self.changed.clear()
            await self.changed.wait()
        news, self.news = self.news, None
        return news


class Answer(Slot):
    """The outputs of one request, as they come: `async for` them.

    A slow reader gets the newest, which has all that came before it;
    the last is never left out. EngineError where there will be none.
    Whoever leaves early, out of `async with`, by `aclose()` or by
    letting go of it, aborts the request; so does a cancelled wait.
    """

    def __init__(self, request_id: str, abort: Callable[[], None]):
        super().__init__()
        self.request_id, self.abort = request_id, abort

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
        try:
            news = await self.get()
        except asyncio.CancelledError:
            self.close()
            raise
        if news is None:
            raise StopAsyncIteration
        if isinstance(news, Exception):
            raise news
        return news

    async def last(self) -> RequestOutput:
        """All of it, once it has ended. EngineError if it was left."""
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
