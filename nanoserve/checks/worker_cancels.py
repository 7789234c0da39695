"""Who leaves, at every moment and in every way: blocks come back within a step. Day 19."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

from nanoserve.checks.common import agree, holds
from nanoserve.checks.loops import Gate, Watched, on_a_loop
from nanoserve.checks.model import tokens
from nanoserve.checks.serving import GREEDY
from nanoserve.generate import generate
from nanoserve.model import Llama
from nanoserve.server.answer import Answer
from nanoserve.server.worker import AsyncEngine

# Two rows and 7 tokens a step: "0" writes all the time, "1" reads its prompt in steps 2 and 3 and
# writes three tokens, "2" waits until it has ended, and writes two.
ASKED = ((5, 12), (12, 3), (3, 2))
MOMENTS = 9  # steps before somebody leaves: "2" has ended before the last
WAYS = ("aclose", "async with", "a cancelled task", "let go")


def check_cancels(model: Llama, ways: int = 1) -> None:
    """At each moment in so many ways; the others' ids are those of each alone."""
    rows = tokens(3, 20).tolist()
    mix = [
        (row[:n], replace(GREEDY, max_tokens=most))
        for row, (n, most) in zip(rows, ASKED, strict=True)
    ]
    alone = [generate(model, *asked).token_ids for asked in mix]
    for moment in range(MOMENTS):
        for victim in (1, 2):
            for i in range(ways):
                way = WAYS[(moment + victim + i) % len(WAYS)]
                what = f"request {victim}, left by {way} after {moment} steps"
                cancel(what, model, mix, alone, victim, moment, way)


def cancel(
    what: str, model: Llama, mix: list, alone: list, victim: int, moment: int, way: str
) -> None:
    """One schedule, driven by hand."""
    engine = Watched(model, num_blocks=14, block_size=4, max_num_seqs=2, max_num_batched_tokens=7)

    async def main() -> None:
        async with AsyncEngine(engine) as served, Gate(engine) as gate:
            answers = [await served.submit(*mix[0], "0")]
            await gate.arrived()  # the others' commands wait until the next step has been made
            answers += [await served.submit(*mix[i], str(i)) for i in (1, 2)]
            others = {i: asyncio.create_task(answers[i].last()) for i in {0, 1, 2} - {victim}}
            signal = asyncio.Event()
            leaving = asyncio.create_task(leave(answers[victim], way, signal))
            del answers
            await gate.step(moment)
            ended = str(victim) in engine.ended
            signal.set()
            left = await leaving
            await gate.step()
            holds(f"{what}: within a step it must be gone", str(victim) not in engine.requests)
            engine.audit()
            agree(f"{what}: aborts", engine.aborts, [] if ended else [str(victim)])
            gate.open()
            for i, task in others.items():
                agree(f"{what}: ids of request {i}", (await task).token_ids, alone[i])
            await served.stop()
            agree(f"{what}: what it tells later", [output async for output in left], [])
            agree(f"{what}: aborts, at the end", engine.aborts, [] if ended else [str(victim)])
            agree(f"{what}: in flight", (served.running, served.waiting), (0, 0))
            agree(f"{what}: free blocks, as it says", served.stats().free_blocks, 14)

    on_a_loop(what, main)
    engine.check(what)


async def leave(answer: Answer, way: str, signal: asyncio.Event) -> AsyncIterator:
    """Read an answer until there is a signal, then leave it. What is left of it: nothing."""
    if way == "let go":
        await signal.wait()
        return nothing()  # nobody holds it any more
    task = asyncio.create_task(read(answer))
    await asyncio.sleep(0)  # it waits now: a task that never began holds nothing to be closed
    await signal.wait()
    if way == "a cancelled task":
        task.cancel()
    elif way == "aclose":  # by somebody else, while it is read
        await answer.aclose()
        await answer.aclose()
    else:
        with suppress(KeyError):
            async with answer:
                raise KeyError("the client has hung up")
    await asyncio.gather(task, return_exceptions=True)
    agree(f"what comes after {way}", [output async for output in answer], [])
    return answer


async def nothing() -> AsyncIterator:
    """No output."""
    return
    yield


async def read(answer: Answer) -> None:
    """All outputs."""
    async for _ in answer:
        pass
