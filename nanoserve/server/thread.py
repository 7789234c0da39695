"""The thread that steps an engine. Nobody else touches it.

Built in the book: day19. Edit there, then run book/tangle.py.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread

from nanoserve.engine.engine import Engine
from nanoserve.engine.safety import drop_all
from nanoserve.sampling import SamplingParams
from nanoserve.server.answer import EngineError, Mailbox, News, is_last

log = logging.getLogger(__name__)
ENDED = ""  # the name under which the thread's own end is told


@dataclass(frozen=True)
class Stats:
    """The engine between two steps. Replaced as a whole, never changed."""

    running: int
    waiting: int
    free_blocks: int
    num_blocks: int
    steps: int
    failures: int  # steps that raised


class Keeper(Thread):
    """An engine, and what may be done with it between two steps."""

    def __init__(self, engine: Engine, mail: Mailbox):
        super().__init__(name="nanoserve-engine", daemon=True)
        self.engine, self.mail = engine, mail
        self.commands: SimpleQueue[tuple] = SimpleQueue()
        self.owned: set[str] = set()  # let in, their end not told
        self.steps, self.failures = 0, 0
        self.failed = False  # the newest step that had work to do
        self.closing = False
        self.stats = self.count()

    def add(self, name: str, ids: Sequence[int], params: SamplingParams) -> None:
        """A command. What it raises concerns this request alone."""
        self.owned.add(name)
        try:
            self.engine.add_request(name, ids, params)
        except Exception as error:
            log.exception("%s was checked, and is refused", name)
            self.tell({name: EngineError(f"refused: {error!r}")})

    def abort(self, name: str) -> None:
        """A command. The next step tells of it, if it still ran."""
        self.engine.abort(name)

    def close(self) -> None:
        """A command: let everybody go. The next step is the last."""
        self.closing = True
        for name in self.owned:
            self.engine.abort(name)

    def tell(self, told: dict[str, News]) -> None:
        """To the loop. Who has ended is out of our hands."""
        self.owned -= {name for name in told if is_last(told[name])}
        self.stats = self.count()
        self.mail.put(told)

    def count(self) -> Stats:
        """The engine as it stands."""
        scheduler = self.engine.scheduler
        return Stats(
            len(scheduler.running),
            len(scheduler.waiting),
            self.engine.num_free_blocks,
            scheduler.blocks.num_blocks,
            self.steps,
            self.failures,
        )


class EngineThread(Keeper):
    """Commands, a step, commands, a step, until it is closed.

    A step that raises costs the requests that are in. Two in a row, or
    books that do not agree afterwards, end the thread.
    """

    def run(self) -> None:
        why = "the engine's thread has ended"
        try:
            while not self.closing:
                self.obey()
                self.step()
        except Exception as error:
            log.exception(why)
            why = f"{why}: {error!r}"
        with suppress(RuntimeError):  # a closed loop has nobody to tell
            self.mail.put({ENDED: EngineError(why)})

    def obey(self) -> None:
        """All that was asked since the last step; a wait if idle."""
        idle = not self.engine.has_unfinished()
        while idle or not self.commands.empty():
            act, *inputs = self.commands.get()
            act(*inputs)
            idle = False

    def step(self) -> None:
        """One step, and everybody is told. One that raises, too."""
        works = self.engine.has_unfinished()
        self.steps += works
        try:  # a good step that had work forgives the last
            told = {out.request_id: out for out in self.engine.step()}
            self.failed = self.failed and not works
        except Exception as error:
            told = self.lost(error)
        self.tell(told)

    def lost(self, error: Exception) -> dict[str, News]:
        """A step raised: this is what its requests are told.

        The second in a row, or books that do not agree, raise on.
        """
        log.exception("a step failed, and with it %s", sorted(self.owned))
        self.failures += 1
        if self.failed:
            raise error
        self.failed = True
        drop_all(self.engine)
        why = f"a step of the engine failed: {error!r}"
        return {name: EngineError(why) for name in self.owned}
