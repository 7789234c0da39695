"""An event loop for a check, and an engine that takes its steps when it is told to: Day 19.

No check waits for a time: what hangs is known by a process that does nothing any more.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from nanoserve.checks.common import holds
from nanoserve.checks.hangs import run
from nanoserve.engine.engine import Engine


def on_a_loop(what: str, main: Callable[[], Coroutine], debug: bool = True) -> Any:
    """What a coroutine gives, on a loop and in a thread of its own: here one may run already.

    AssertionError where it fails, hangs, or leaves a task or a thread. The loop is in asyncio's
    debug mode, which refuses what another thread does to it, and doubles the time of a socket.
    """
    before = {*threading.enumerate()}

    async def watched() -> Any:
        result = await main()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        holds(f"{what}: no task may be left", not tasks, f"{len(tasks)} are")
        return result

    try:
        result = run(what, watched(), debug)
    except (AssertionError, NotImplementedError):
        raise
    except BaseException as error:
        raise AssertionError(f"{what}: {error!r}") from error
    left = [t.name for t in {*threading.enumerate()} - before]
    holds(f"{what}: no thread may be left", not left, f"there is {left}")
    return result


class Watched(Engine):
    """An engine that notes who touches it, and has something done before and after a step."""

    def __init__(self, *given: Any, **settings: Any):
        super().__init__(*given, **settings)
        self.threads: set[int] = set()  # that called one of the methods below
        self.calls = 0  # of step
        self.aborts: list[str] = []
        self.ended: set[str] = set()  # requests, by what a step told
        self.before: Callable[[], None] = lambda: None
        self.during: Callable[[], None] = lambda: None  # before a token becomes text
        self.after: Callable[[], None] = lambda: None
        self.refused: set[str] = set()  # that add_request refuses for no reason

    def step(self):
        self.note()
        self.calls += 1
        self.before()
        outputs = super().step()
        self.ended |= {output.request_id for output in outputs if output.finished}
        self.after()
        return outputs

    def write(self, request):
        self.during()
        super().write(request)

    def add_request(self, request_id, *asked):
        self.note()
        if request_id in self.refused:
            raise RuntimeError("no reason")
        super().add_request(request_id, *asked)

    def abort(self, request_id):
        self.note()
        self.aborts.append(request_id)
        return super().abort(request_id)

    def note(self) -> None:
        """Who calls."""
        self.threads.add(threading.get_ident())

    def check(self, what: str, threads: int = 1) -> None:
        """After its thread has ended: nothing is left, and one thread alone did it all."""
        self.audit()
        holds(f"{what}: all blocks must be free", self.num_free_blocks == self.pool_blocks)
        holds(f"{what}: no request may be left", not self.has_unfinished())
        loop = threading.get_ident() in self.threads
        holds(f"{what}: the loop must not touch the engine", not loop)
        holds(f"{what}: one thread alone may touch the engine", len(self.threads) <= threads)

    @property
    def pool_blocks(self) -> int:
        """Blocks of the pool."""
        return self.scheduler.blocks.num_blocks


class Gate:
    """Lets an engine take a step when it is told to. Made on the loop, asked on the thread.

    It is open after `async with`, so that an error within is the one that is seen.
    """

    def __init__(self, engine: Watched):
        self.loop = asyncio.get_running_loop()
        self.permits, self.there = threading.Semaphore(0), asyncio.Event()
        self.opened = False
        engine.before = self.wait

    def wait(self) -> None:
        """On the engine's thread: until the next permit."""
        if not self.opened:
            self.loop.call_soon_threadsafe(self.there.set)
            self.permits.acquire()

    async def arrived(self) -> None:
        """Until the engine stands before a step, all commands taken."""
        await self.there.wait()

    async def step(self, times: int = 1) -> None:
        """So many steps; then the engine stands before the next one."""
        for _ in range(times):
            self.there.clear()
            self.permits.release()
            await self.there.wait()

    def open(self) -> None:
        """From now on it steps as it likes."""
        self.opened = True
        self.permits.release()

    async def __aenter__(self) -> "Gate":
        return self

    async def __aexit__(self, *error: object) -> None:
        self.open()

    def shut(self) -> None:
        """An idle engine stands before its next step again, once it has something to do."""
        self.opened = False
        self.there.clear()
        while self.permits.acquire(blocking=False):
            pass
