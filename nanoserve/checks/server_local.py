"""A server on this machine for a check, clients for it, an engine that steps when told: Day 20."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import uvicorn

from nanoserve.checks.common import attempt, holds
from nanoserve.engine.engine import Engine
from nanoserve.server.app import create_app

MODEL, SECONDS = "a-model", 60.0  # after which something hangs, and is not slow


def apart(work: Coroutine) -> Any:
    """What a coroutine gives, on a loop of its own: a notebook's is running already."""

    async def bounded() -> Any:
        return await asyncio.wait_for(work, SECONDS)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, bounded()).result()


class Local:
    """A server in a thread, at a port that was free."""

    def __init__(self, engine: Engine, **settings: Any):
        self.engine = engine
        self.app = attempt("create_app", create_app, engine, MODEL, **settings)
        self.worker = self.app.state.worker
        self.failed: Exception | None = None  # what stands behind the last 500
        quiet = {"port": 0, "log_level": "critical", "timeout_graceful_shutdown": 1}
        self.server = uvicorn.Server(uvicorn.Config(self.heard, interface="asgi3", **quiet))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        late = time.monotonic() + SECONDS
        while not self.server.started:
            holds("the server must start", self.thread.is_alive() and time.monotonic() < late)
            time.sleep(0.002)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=SECONDS)

    async def heard(self, scope: Any, receive: Any, send: Any) -> None:
        """The app; what it raises is kept, for it is told in the log alone."""
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            self.failed = error
            raise

    def client(self, key: str = "none", kind: type = openai.OpenAI) -> Any:
        """The official client, that does not try again."""
        return kind(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=SECONDS)

    def raw(self, path: str, body: dict) -> socket.socket:
        """A connection on which this was asked, and nothing read."""
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        there = socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)
        there.sendall(head.encode() + data)
        return there

    def turns(self, count: int) -> None:
        """Let the event loop go round, and look at its connections, so many times four."""

        async def round_and_round() -> None:
            for _ in range(4):
                await asyncio.sleep(0)

        for _ in range(count):
            turned = asyncio.run_coroutine_threadsafe(round_and_round(), self.worker.loop)
            attempt("the event loop", turned.result, SECONDS)
            time.sleep(0.0005)  # for the other threads: the engine's, and those that cut texts

    def close(self) -> None:
        self.http.close()
        self.server.should_exit = True
        self.thread.join(SECONDS)


@contextmanager
def served(engine: Engine, **settings: Any) -> Iterator[Local]:
    """A server that ends with the block; the engine is its caller's again then."""
    local = Local(engine, **settings)
    try:
        yield local
    except AssertionError as error:
        if isinstance(local.failed, NotImplementedError):
            raise local.failed from None  # a practice notebook's blank says so itself
        if local.failed:
            raise AssertionError(f"{error}. The server failed: {local.failed!r}") from local.failed
        raise
    finally:
        local.close()


class Stepped:
    """An engine's steps, one for each that is let go; in between the event loop is alone."""

    def __init__(self, engine: Engine):
        self.engine, self.plain = engine, engine.step
        self.turns, self.done = threading.Semaphore(0), 0
        self.waits = False  # a step is asked for, and not let go
        engine.step = self.step

    def step(self) -> list:
        self.waits = True
        self.turns.acquire(timeout=SECONDS)
        self.waits = False
        told = self.plain()
        self.done += 1
        return told

    def go(self, count: int) -> None:
        """So many steps; when this returns, the thread asks for the next one or has no work."""
        wanted, late = self.done + count, time.monotonic() + SECONDS
        if count:
            self.turns.release(count)
        while self.done < wanted or not (self.waits or not self.engine.has_unfinished()):
            holds("the engine's thread must step", time.monotonic() < late)
            time.sleep(0.0005)

    def free(self) -> None:
        """From now on nothing waits."""
        self.engine.step = self.plain
        self.turns.release(10_000)
