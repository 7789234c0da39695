"""Steps that raise: their requests are told, the next are served. Day 19."""

import asyncio
from dataclasses import replace

from nanoserve.checks.common import agree, holds
from nanoserve.checks.loops import Gate, Watched, on_a_loop
from nanoserve.checks.model import tokens
from nanoserve.checks.serving import GREEDY
from nanoserve.generate import generate
from nanoserve.model import Llama
from nanoserve.server.answer import Answer, EngineError, Stopped
from nanoserve.server.worker import AsyncEngine

# Where in a step it raises, after so many good ones. In the fourth step a request ends: the
# scheduler has let go of it when its last token is to become text.
PLACES = ("before", "after", "before", "during", "after", "before")
SETTINGS = {"num_blocks": 14, "block_size": 4, "max_num_seqs": 2, "max_num_batched_tokens": 7}


def check_failures(model: Llama) -> None:
    """At every moment, twice in a row, with broken books, and where one request is refused."""
    rows = tokens(3, 12).tolist()
    mix = [
        (row[:n], replace(GREEDY, max_tokens=4)) for row, n in zip(rows, (3, 12, 5), strict=True)
    ]
    alone = [generate(model, *asked).token_ids for asked in mix]
    check_each_moment(model, mix, alone)
    for what, place in (("before", "before"), ("after its tokens were drawn", "after")):
        check_two_in_a_row(model, mix, what, place)
    check_broken_books(model, mix, alone)
    check_one_refused(model, mix, alone)


async def outcomes(answers: list[Answer]) -> list[list[int] | str]:
    """The ids of each answer, or the error that it got."""

    async def one(answer: Answer) -> list[int] | str:
        try:
            return (await answer.last()).token_ids
        except EngineError as error:
            return f"EngineError: {error}"

    return await asyncio.gather(*map(one, answers))


def fail(engine: Watched, steps: set[int], place: str = "before") -> None:
    """Let these steps raise, by their number from 1: `before` the model runs, or later."""
    then = getattr(engine, place)

    def hook() -> None:
        then()
        if engine.calls in steps:
            raise RuntimeError(f"step {engine.calls} of the engine cannot be")

    setattr(engine, place, hook)


def check_each_moment(model: Llama, mix: list, alone: list) -> None:
    """Six failing steps of one engine, each after more good ones; between them all is served."""
    engine = Watched(model, **SETTINGS)

    async def main() -> None:
        last = 0
        async with AsyncEngine(engine) as served, Gate(engine) as gate:
            for moment in range(6):
                what = f"a step that raises after {moment} good ones"
                fails = last + moment + 1
                fail(engine, {fails}, PLACES[moment])
                answers = [await served.submit(*mix[0])]
                await gate.arrived()
                answers += [await served.submit(*asked) for asked in mix[1:]]
                await gate.step(moment)
                # What comes while the step runs is no part of it, but in the very first one.
                late = await served.submit(*mix[0])
                hit, rest = (answers[:1], answers[1:]) if moment == 0 else (answers, [])
                hit = [one for one in hit if one.request_id not in engine.ended]
                await gate.step()
                for said in await outcomes(hit):
                    told = isinstance(said, str) and f"step {fails}" in said
                    holds(f"{what}: its requests must be told of it", told, f"told was {said}")
                holds(f"{what}: the engine is healthy", served.healthy)
                engine.audit()
                gate.open()
                said = await outcomes([*rest, late])
                agree(f"{what}: ids of the next", said, [*alone[1 : 1 + len(rest)], alone[0]])
                await asyncio.wait_for(served.idle.wait(), None)
                agree(f"{what}: failures counted", served.stats().failures, moment + 1)
                gate.shut()
                last = engine.calls

    on_a_loop("failing steps", main)
    engine.check("after six failing steps")


def check_two_in_a_row(model: Llama, mix: list, what: str, place: str) -> None:
    """The second ends it: everybody is told, also who came meanwhile; nobody may come any more."""
    what = f"two steps in a row that raise {what}"
    engine = Watched(model, **SETTINGS)

    async def main() -> None:
        served = AsyncEngine(engine)
        await served.start()
        async with Gate(engine) as gate:
            fail(engine, {2, 3}, place)
            first = await served.submit(*mix[0])
            await gate.arrived()
            await gate.step()
            second = await served.submit(*mix[1])
            await gate.step()
            third = await served.submit(*mix[2])  # its command is never taken
        said = await outcomes([first, second, third])
        agree(f"{what}: the first is told", said[0][-60:].count("step 2"), 1)
        holds(
            f"{what}: the others must be told", all("step 3" in one for one in said[1:]), str(said)
        )
        holds(f"{what}: it is healthy no more", not served.healthy)
        try:
            await served.submit(*mix[0])
            raise AssertionError(f"{what}: Stopped is wanted, and nothing was raised")
        except Stopped:
            await served.stop()

    on_a_loop(what, main)


def check_broken_books(model: Llama, mix: list, alone: list) -> None:
    """A step that raises and loses a block: no request may meet what is left.

    The loop is away meanwhile: who ended before is told so, in the same mail as the thread's end.
    """
    what = "a step that raises and loses a block"
    engine = Watched(model, **SETTINGS)

    def lose() -> None:
        if engine.calls == 2:
            engine.scheduler.blocks.queue.popitem()

    engine.before = lose
    fail(engine, {2})

    async def main() -> None:
        async with AsyncEngine(engine) as served:
            before = await served.submit(mix[0][0], replace(GREEDY, max_tokens=1))
            answers = [before, await served.submit(*mix[0])]
            served.thread.join(60)
            first, said = await outcomes(answers)
            agree(f"{what}: ids of who ended before", first, alone[0][:1])
            holds(f"{what}: its request must be told", isinstance(said, str), f"told was {said}")
            await served.ended.wait()
            holds(f"{what}: it is healthy no more", not served.healthy)

    on_a_loop(what, main)


def check_one_refused(model: Llama, mix: list, alone: list) -> None:
    """What the engine refuses though it was checked concerns no other request."""
    what = "a request that the engine refuses later"
    engine = Watched(model, **SETTINGS)
    engine.refused = {"1"}

    async def main() -> None:
        async with AsyncEngine(engine) as served:
            answers = [await served.submit(*asked, str(i)) for i, asked in enumerate(mix)]
            said = await outcomes(answers)
            holds(f"{what} must be told", "no reason" in str(said[1]), f"told was {said[1]}")
            agree(f"{what}: the others' ids", [said[0], said[2]], [alone[0], alone[2]])

    on_a_loop(what, main)
    engine.check(what)
