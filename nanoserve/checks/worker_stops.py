"""Stopping: who runs ends or is told, and no thread is left. Day 19."""

import asyncio
import threading
from contextlib import suppress
from dataclasses import replace

from nanoserve.checks.common import agree, holds
from nanoserve.checks.loops import Gate, Watched, on_a_loop
from nanoserve.checks.serving import GREEDY
from nanoserve.checks.worker_bounds import PROMPT, SHORT, TWO, refusal
from nanoserve.checks.worker_failures import outcomes
from nanoserve.model import Llama
from nanoserve.server import worker
from nanoserve.server.answer import EngineError, Stopped
from nanoserve.server.worker import AsyncEngine

LONG = replace(GREEDY, max_tokens=20)


def check_stops(model: Llama) -> None:
    """All of this file."""
    check_order(model)
    check_grace(model)
    check_no_grace(model)
    check_async_with(model)
    check_a_step_without_end(model)


def check_order(model: Llama) -> None:
    """Before the start, twice, and after the end."""
    engine = Watched(model, **TWO)

    async def main() -> None:
        never = AsyncEngine(Watched(model, **TWO))
        await refusal(Stopped, "before the start", never, PROMPT, SHORT)
        holds("before the start it is not healthy", not never.healthy)
        agree("before the start", (never.running, never.waiting), (0, 0))
        agree("free blocks before the start", never.stats().free_blocks, 14)
        await never.stop()
        served = AsyncEngine(engine)
        before = {*threading.enumerate()}
        await served.start()
        new = [thread.daemon for thread in {*threading.enumerate()} - before]
        agree("threads that a process waits for, after the start", new, [True])
        holds("after the start it is healthy", served.healthy)
        try:
            await served.start()
            raise AssertionError("a second start: RuntimeError is wanted, nothing was raised")
        except RuntimeError:
            pass
        await asyncio.gather(served.stop(), served.stop())
        holds("after the end it is not healthy", not served.healthy)
        await served.stop()
        await refusal(Stopped, "after the end", served, PROMPT, SHORT)
        for grace in (-1.0, float("nan")):
            try:
                await served.stop(grace)
                raise AssertionError(f"grace {grace}: ValueError is wanted, nothing was raised")
            except ValueError:
                pass

    on_a_loop("start and stop", main)
    engine.check("start and stop")


def check_grace(model: Llama) -> None:
    """With an hour of grace all are answered, who waits too, and the hour is not waited for."""
    engine = Watched(model, **TWO)

    async def main() -> None:
        served = AsyncEngine(engine)
        await served.start()
        async with Gate(engine) as gate:
            answers = [await served.submit(PROMPT, SHORT) for _ in range(5)]
            stopping = asyncio.create_task(served.stop(3600))
            await gate.arrived()
            holds("who stops is not healthy", not served.healthy)
            await refusal(Stopped, "while it stops", served, PROMPT, SHORT)
        await stopping
        reasons = [(await answer.last()).finish_reason for answer in answers]
        agree("reasons, with grace", reasons, ["length"] * 5)

    on_a_loop("a stop with grace", main)
    engine.check("a stop with grace")


def check_no_grace(model: Llama) -> None:
    """Without grace: all are told with what they have, who waits too, and whose command waits."""
    engine = Watched(model, **TWO)

    async def main() -> None:
        served = AsyncEngine(engine)
        await served.start()
        async with Gate(engine) as gate:
            answers = [await served.submit(PROMPT, LONG) for _ in range(3)]
            await gate.arrived()
            await gate.step(4)
            answers.append(await served.submit(PROMPT, LONG))
            stopping = asyncio.create_task(served.stop(0))
            await gate.step()
        await stopping
        told = [await answer.last() for answer in answers]
        reasons = [output.finish_reason for output in told]
        agree("reasons, without grace", reasons, ["abort"] * 4)
        lengths = [len(output.token_ids) for output in told]
        holds(
            "what was written is told, without grace",
            lengths[0] >= 4 and lengths[1] >= 4 and lengths[2:] == [0, 0] and max(lengths) < 20,
            f"lengths are {lengths}",
        )

    on_a_loop("a stop without grace", main)
    engine.check("a stop without grace")


def check_async_with(model: Llama) -> None:
    """The end of `async with` waits for who is in flight; an error does not."""
    engine = Watched(model, **TWO)

    async def main() -> None:
        async with AsyncEngine(engine) as served:
            answer = await served.submit(PROMPT, SHORT)
        agree("reason, after async with", (await answer.last()).finish_reason, "length")
        try:
            async with AsyncEngine(engine) as served, Gate(engine) as gate:
                answer = await served.submit(PROMPT, LONG)
                await gate.arrived()
                await gate.step()
                raise KeyError("an error of the caller's")
        except KeyError:
            agree("reason, after an error", (await answer.last()).finish_reason, "abort")

    on_a_loop("async with", main)
    engine.check("async with", threads=2)


def check_a_step_without_end(model: Llama) -> None:
    """A step that does not come back: stop says so, and everybody is told."""
    engine, limit = Watched(model, **TWO), worker.LAST_STEP
    release, left = threading.Event(), []

    async def main() -> None:
        engine.before = release.wait
        served = AsyncEngine(engine)
        await served.start()
        left.append(served.thread)
        answers = [await served.submit(PROMPT, SHORT) for _ in range(3)]
        try:
            await served.stop(0)
            raise AssertionError("a stop while a step has no end: EngineError is wanted")
        except EngineError:
            holds("it is not healthy then", not served.healthy)
        said = await outcomes(answers)
        holds("everybody must be told", all(isinstance(one, str) for one in said), str(said))
        release.set()
        await asyncio.to_thread(left[0].join)

    worker.LAST_STEP = 0.05
    try:
        on_a_loop("a step without an end", main)
    finally:
        release.set()
        worker.LAST_STEP = limit
    with suppress(IndexError):
        left[0].join(1)
