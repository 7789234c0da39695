"""Runs a coroutine beside a loop that runs already, and says who waits if it hangs: Day 19.

What hangs is known by a process that does nothing any more.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

QUIET = 20  # tenths of a second, one after another, in which a process that hangs does nothing
LONGEST = 60.0  # seconds, for what runs in circles


def run(what: str, main: Coroutine, debug: bool = False) -> Any:
    """What a coroutine gives, or raises, on a loop and in a thread of its own.

    AssertionError where nothing computes any more, or it has no end.
    """
    future, loops = Future(), []

    async def noted() -> Any:
        loops.append(asyncio.get_running_loop())
        loops[0].slow_callback_duration = float("inf")  # of debug mode
        return await main

    def work() -> None:
        try:
            future.set_result(asyncio.run(noted(), debug=debug))
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=work, daemon=True)
    with quiet() as died:
        thread.start()
        watch(what, thread, died, loops)
    return future.result()


@contextmanager
def quiet() -> Iterator[list[BaseException]]:
    """Steps that fail on purpose are not logged. The errors by which threads ended meanwhile."""
    died, hook = [], threading.excepthook
    logs = [logging.getLogger(name) for name in ("nanoserve.server", "asyncio")]
    levels = [log.level for log in logs]
    threading.excepthook = lambda given: died.append(given.exc_value)
    for log in logs:
        log.setLevel(logging.CRITICAL + 1)
    try:
        yield died
    finally:
        threading.excepthook = hook
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def watch(what: str, thread: threading.Thread, died: list[BaseException], loops: list) -> None:
    """Wait for its end. AssertionError where nothing computes any more, or it has no end."""
    began, idle, spent = time.monotonic(), 0, time.process_time()
    while thread.is_alive():
        thread.join(0.1)
        now = time.process_time()
        idle, spent = (idle + 1 if now - spent < 1e-3 else 0), now
        if not thread.is_alive():
            return
        if idle == QUIET and died and isinstance(died[0], NotImplementedError):
            raise died[0]  # a practice notebook's blank says so itself
        if idle >= QUIET:
            why = f", since a thread ended with {died[0]!r}" if died else ""
            raise AssertionError(f"{what}: it hangs{why}. Who waits, and where:\n{stand(loops)}")
        if time.monotonic() - began > LONGEST:
            raise AssertionError(f"{what}: it goes on and on. Who is where:\n{stand(loops)}")


def stand(loops: list[asyncio.AbstractEventLoop]) -> str:
    """Where the tasks of a loop stand, each from the outside in."""
    chains = set()
    for task in (task for loop in loops for task in asyncio.all_tasks(loop)):
        names, inner = [], task.get_coro()
        while hasattr(inner, "cr_await"):
            names.append(inner.__qualname__.replace("<locals>.", ""))
            inner = inner.cr_await
        chains.add(
            "  " + " > ".join(name for name in names if not name.startswith(("run.", "on_a_loop.")))
        )
    return "\n".join(sorted(chains))
