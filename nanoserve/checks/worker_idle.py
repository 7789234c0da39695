"""An engine that nobody asks, what AsyncEngine is given, and how a refusal is heard. Day 19."""

import asyncio
from dataclasses import replace

from nanoserve.checks.common import agree, must_raise
from nanoserve.checks.loops import Watched, on_a_loop
from nanoserve.checks.serving import GREEDY
from nanoserve.model import Llama
from nanoserve.server.worker import AsyncEngine

TWO = {"num_blocks": 14, "block_size": 4, "max_num_seqs": 2}
SHORT = replace(GREEDY, max_tokens=2)
PROMPT = [3, 1, 4]


async def refusal(error: type[Exception], what: str, served: AsyncEngine, *asked) -> Exception:
    """The error with which submit refuses. AssertionError if it does not, or by another."""
    try:
        await served.submit(*asked)
    except error as refused:
        return refused
    except Exception as other:
        raise AssertionError(f"{what}: {error.__name__} is wanted, not {other!r}") from other
    raise AssertionError(f"{what}: {error.__name__} is wanted, and nothing was raised")


def check_idle(model: Llama) -> None:
    """An engine without requests makes no steps."""
    engine = Watched(model, **TWO)

    async def main() -> None:
        async with AsyncEngine(engine) as served:
            await asyncio.sleep(0.02)
            agree("steps of an engine that was asked nothing", engine.calls, 0)
            await (await served.submit(PROMPT, SHORT)).last()
            await asyncio.sleep(0.02)
            agree("steps for two tokens", (engine.calls, served.stats().steps), (2, 2))
            agree("ends that it has seen, the start and one answer", len(served.ends), 2)
            served.thread.commands.put((int,))  # nothing to do
            await asyncio.sleep(0.02)
            await (await served.submit(PROMPT, SHORT)).last()
            agree("steps that had work", served.stats().steps, 4)

    on_a_loop("an idle engine", main)


def check_arguments(model: Llama) -> None:
    """What is not honoured is refused; another loop is told of."""
    for waiting in (-1, 1.5, True, None):
        must_raise(
            ValueError, f"max_waiting {waiting!r}", AsyncEngine, Watched(model, **TWO), waiting
        )
    served = AsyncEngine(Watched(model, **TWO))

    async def main() -> None:
        async with served:
            elsewhere = refusal(RuntimeError, "another loop", served, PROMPT, SHORT)
            await asyncio.to_thread(asyncio.run, elsewhere)

    on_a_loop("a request from another loop", main)
