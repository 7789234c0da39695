"""A loop that never waits for a step, and queues that are bounded. Day 19."""

import asyncio
import threading
from dataclasses import replace

from nanoserve.checks.common import agree, holds
from nanoserve.checks.loops import Gate, Watched, on_a_loop
from nanoserve.checks.serving import GREEDY
from nanoserve.checks.worker_idle import PROMPT, SHORT, TWO, check_arguments, check_idle, refusal
from nanoserve.checks.worker_parts import Ears
from nanoserve.model import Llama
from nanoserve.server.answer import Busy
from nanoserve.server.worker import AsyncEngine

NINE = replace(GREEDY, max_tokens=9)


def check_bounds(model: Llama) -> None:
    """All of this file, the cheap first."""
    check_the_loop_turns(model)
    check_refused_meanwhile(model)
    for waiting in (0, 1, 3):
        check_places(model, waiting)
    check_the_mail(model)
    check_idle(model)
    check_arguments(model)


def check_the_loop_turns(model: Llama) -> None:
    """A step that ends only when the loop has answered five times, while it ran."""
    engine, healthy = Watched(model, **TWO), threading.Semaphore(0)

    def step_needs_the_loop() -> None:
        if not all(healthy.acquire(timeout=20) for _ in range(5)):
            raise TimeoutError("the loop stood still while a step ran")

    async def health() -> None:
        while True:
            healthy.release()
            await asyncio.sleep(0.001)

    async def main() -> None:
        engine.before = step_needs_the_loop
        asking = asyncio.create_task(health())
        async with AsyncEngine(engine) as served:
            output = await (await served.submit(PROMPT, SHORT)).last()
            agree("ids while the loop turns", len(output.token_ids), 2)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    on_a_loop("steps that wait for the loop", main)
    engine.check("steps that wait for the loop")


def check_refused_meanwhile(model: Llama) -> None:
    """What can never run is refused while a step runs, and leaves nothing behind."""
    engine = Watched(model, **TWO)

    async def main() -> None:
        served = AsyncEngine(engine, max_waiting=9)
        ears = served.thread.mail.watch = Ears(served.thread.commands.empty)
        async with served, Gate(engine) as gate:
            answer = await served.submit(PROMPT, SHORT, "one")
            await gate.arrived()
            asked = {
                "no prompt": ([], SHORT),
                "an id past the vocabulary": ([999_999], SHORT),
                "more than the pool holds": (PROMPT, replace(SHORT, max_tokens=60)),
                "more than the context holds": ([1] * 60, replace(SHORT, max_tokens=9)),
                "stop texts without a tokenizer": (PROMPT, replace(SHORT, stop=("a",))),
                "an id in use": (PROMPT, SHORT, "one"),
                "an empty id": (PROMPT, SHORT, ""),
                "an id that is no text": (PROMPT, SHORT, 7),
            }
            for what, each in asked.items():
                said = await refusal(ValueError, what, served, *each)
                holds(f"{what}: the refusal must say what is wrong", len(str(said)) > 9)
            agree("requests in flight after refusals", served.running + served.waiting, 1)
            ids = [1, 2]
            later = await served.submit(ids, SHORT)
            ids[:] = [3]  # the caller's own
            agree("told to the Watch by submit", ears.names, ["one", later.request_id])
            holds("it must be told before the engine's thread is", ears.seen[-1])
            gate.open()
            outputs = [await answer.last(), await later.last()]
            agree(
                "prompts, one from a list that changed later",
                [output.prompt_token_ids for output in outputs],
                [PROMPT, [1, 2]],
            )
            plain = await (await served.submit(PROMPT)).last()
            agree("most tokens, without params", len(plain.token_ids) <= 16, True)
            again = await served.submit(PROMPT, SHORT, "one")
            agree("a name that is free again", (await again.last()).token_ids, outputs[0].token_ids)

    on_a_loop("requests that are refused while a step runs", main)
    engine.check("requests that were refused")


def check_places(model: Llama, waiting: int) -> None:
    """Rows and places are filled, and one more is refused; a place that is free is given again."""
    what, engine = f"max_waiting {waiting}", Watched(model, **TWO)

    async def main() -> None:
        async with AsyncEngine(engine, max_waiting=waiting) as served, Gate(engine) as gate:
            answers = [await served.submit(PROMPT, NINE) for _ in range(2 + waiting)]
            busy = await refusal(Busy, what, served, PROMPT, NINE)
            holds(f"{what}: retry_after must be seconds", 0 < busy.retry_after < 1e6)
            await gate.arrived()
            await gate.step(2)  # in the first, some may still be in the mail
            agree(f"{what}: who runs and waits", (served.running, served.waiting), (2, waiting))
            agree(f"{what}: ends that it has seen, the start being one", len(served.ends), 1)
            served.ends[0] -= 1e5  # nobody came all night
            busy = await refusal(Busy, what, served, PROMPT, NINE)
            holds(
                f"{what}: retry_after at most 60 s", busy.retry_after <= 60, f"{busy.retry_after}"
            )
            await answers[0].aclose()
            await gate.step(2)  # in the second the abort is told
            answers[0] = await served.submit(PROMPT, NINE)
            gate.open()
            for answer in answers:
                agree(f"{what}: ids", len((await answer.last()).token_ids), 9)
            more = [await served.submit(PROMPT, NINE) for _ in range(2 + waiting)]
            agree(f"{what}: ids at the end", len((await more[-1].last()).token_ids), 9)

    on_a_loop(what, main)
    engine.check(what)


def check_the_mail(model: Llama) -> None:
    """A loop that is away for twenty steps finds one call, and an answer one output."""
    engine, over = Watched(model, **TWO), threading.Event()

    def after() -> None:
        if engine.calls == 20:
            over.set()

    async def main() -> None:
        loop, calls = asyncio.get_running_loop(), []
        plain = loop.call_soon_threadsafe

        def counted(*given, **named):
            calls.append(given)
            return plain(*given, **named)

        engine.after = after
        async with AsyncEngine(engine) as served:
            loop.call_soon_threadsafe = counted
            params = replace(GREEDY, max_tokens=25)
            answers = [await served.submit(PROMPT, params) for _ in range(2)]
            holds("twenty steps must be made while the loop is away", over.wait(60))
            holds("calls of the loop in twenty steps: one", len(calls) <= 1, f"it is {len(calls)}")
            del loop.call_soon_threadsafe
            first = await anext(answers[0])
            holds("the first output must be the newest", len(first.token_ids) >= 19)
            if not first.finished:  # the thread goes on while the loop comes back
                await answers[0].last()
            await served.idle.wait()
            told = [output async for output in answers[1]]  # read after its end
            agree(
                "ids of an answer that is read at its end", [len(t.token_ids) for t in told], [25]
            )

    on_a_loop("a loop that is away", main)
    engine.check("a loop that is away")
