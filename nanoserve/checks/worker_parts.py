"""The mailbox and the slot by themselves: what is newest, and who is woken. Day 19."""

import asyncio
from collections.abc import Callable
from typing import Any

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.loops import on_a_loop
from nanoserve.engine.request import RequestOutput
from nanoserve.server.answer import Answer, EngineError, Mailbox, Slot, Watch


class NoLoop:
    """Stands for a loop that is away: it counts who calls."""

    def __init__(self):
        self.called: list[Callable] = []

    def call_soon_threadsafe(self, call: Callable) -> None:
        self.called.append(call)

    call_soon = call_soon_threadsafe


class Ears(Watch):
    """A Watch that keeps what it hears."""

    def __init__(self, look: Callable[[], Any] = lambda: None):
        self.names: list[str] = []
        self.news: list[dict] = []
        self.look, self.seen = look, []  # what was so when somebody was let in

    def asked(self, name: str) -> None:
        self.names.append(name)
        self.seen.append(self.look())

    def told(self, news: dict) -> None:
        self.news.append(dict(news))


def output(n: int, finished: bool = False) -> RequestOutput:
    """One that has n tokens."""
    return RequestOutput("a", [1], [7] * n, finished=finished)


def check_parts() -> None:
    """All three."""
    check_mailbox()
    check_slot()
    check_closed()


def check_mailbox() -> None:
    """Three puts, one wake-up, the newest of each; after a take it wakes again."""
    box, loop = Mailbox(check_mailbox), NoLoop()
    box.loop, box.watch = loop, Ears()
    puts = ({}, {"A": 1, "B": 1}, {"A": 2}, {}, {"B": 2, "C": 1})
    for told in puts:
        attempt("Mailbox.put", box.put, told)
    heard = [told for told in box.watch.news if told]
    agree("told to the Watch by Mailbox.put, each time", heard, [told for told in puts if told])
    agree("wake-ups before the mail is taken", len(loop.called), 1)
    holds("what is called on the loop must be `wake`", loop.called[0] is check_mailbox)
    taken = attempt("Mailbox.take", box.take)
    agree("mail that is taken", taken, {"A": 2, "B": 2, "C": 1})
    agree("mail that is taken twice", box.take(), {})
    box.put({"A": 3})
    agree("wake-ups after the mail was taken", len(loop.called), 2)
    agree("mail after that", (box.take(), taken["A"]), ({"A": 3}, 2))


def check_slot() -> None:
    """The newest is read, once; whoever waits at the end is told that it is the end."""

    async def main() -> None:
        slot = Slot()
        for n in (1, 2, 3):
            slot.put(output(n))
        agree("what is read of three outputs", (await slot.get()).token_ids, [7] * 3)
        readers = [asyncio.create_task(slot.get()) for _ in range(3)]
        await asyncio.sleep(0)
        holds("what was read must not be read again", not any(r.done() for r in readers))
        slot.put(output(4))
        done, _ = await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
        agree("readers of one output", [r.result().token_ids for r in done], [[7] * 4])
        slot.put(output(5, finished=True))
        got = [r for r in await asyncio.gather(*readers) if r is not None]
        agree("outputs for three readers", [one.token_ids for one in got], [[7] * 4, [7] * 5])
        slot.put(output(6))
        agree("what is read after the end", await slot.get(), None)
        failed = Slot()
        failed.put(EngineError("no"))
        agree("an error that is read", str(await failed.get()), "no")
        agree("what is read after an error", await failed.get(), None)

    on_a_loop("a slot", main)


def check_closed() -> None:
    """An answer that is left gives nothing more, also of what was there to be read."""

    async def main() -> None:
        aborts = []
        answer = Answer("a", lambda: aborts.append("a"))
        answer.put(output(1))
        await answer.aclose()
        answer.put(output(2))
        agree("what is read of a closed answer", [each async for each in answer], [])
        agree("its aborts", aborts, ["a"])
        left = Answer("b", lambda: aborts.append("b"))
        async with left:
            pass
        agree("aborts of one whose `async with` has ended", aborts, ["a", "b"])
        try:
            said = await left.last()
            raise AssertionError(f"last() of an answer that was left: EngineError, not {said!r}")
        except EngineError:
            pass

    on_a_loop("a closed answer", main)
