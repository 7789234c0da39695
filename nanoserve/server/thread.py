"""The thread that steps an engine. Nobody else touches it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread

from nanoserve.engine.engine import Engine
from nanoserve.engine.safety import drop_all
from nanoserve.sampling import SamplingParams
from nanoserve.server.answer import EngineError, Mailbox, News

log = logging.getLogger(__name__)
ENDED = ""  # the name under which the thread's own end is told


@dataclass(frozen=True)
class Stats:
    """The engine between two steps. Replaced as a whole, never changed."""

    running: int
    waiting: int
    free_blocks: int
    num_blocks: int
    steps: int = 0
    failures: int = 0  # steps that raised


class EngineThread(Thread):
    """Takes commands between steps, and tells after each of them.

    A step that raises costs its requests. Two in a row, or books that
    do not agree afterwards, end the thread. Whoever is in its hands
    then is told, in any case.
    """

    def __init__(self, engine: Engine, mail: Mailbox):
        super().__init__(name="nanoserve-engine", daemon=True)
        self.engine, self.mail = engine, mail
        self.commands: SimpleQueue[tuple] = SimpleQueue()
        self.owned: set[str] = set()  # in, and not told of their end
        self.steps, self.failures = 0, 0
        self.failed = False  # the last step with work to do
        self.closing = False
        self.stats = self.count()

    def run(self) -> None:
        """Commands, a step, commands, a step, until `close`."""
        why = "the engine's thread has ended"
        try:
            while not self.closing:
                self.obey()
                self.step()
        except Exception as error:
            log.exception(why)
            why = f"{why}: {error!r}"
        finally:
            lost = {name: EngineError(why) for name in self.owned}
            self.mail.put(lost | {ENDED: EngineError(why)})

    def obey(self) -> None:
        """All that was asked since the last step; a wait if idle."""
        idle = not self.engine.has_unfinished()
        while idle or not self.commands.empty():
            act, *inputs = self.commands.get()
            act(*inputs)
            idle = False

    def step(self) -> None:
        """One step. If it raises, that is what its requests are told."""
        works = self.engine.has_unfinished()
        self.steps += works
        try:
            told = {o.request_id: o for o in self.engine.step()}
            self.failed = self.failed and not works
        except Exception as error:
            log.exception("a step failed, and with it %s", self.owned)
            self.failures += 1
            if self.failed:
                raise
            self.failed = True
            drop_all(self.engine)
            why = f"a step of the engine failed: {error!r}"
            told = {name: EngineError(why) for name in self.owned}
        self.tell(told)

    def tell(self, told: dict[str, News]) -> None:
        """To the loop. Who has ended is out of our hands."""
        for name, news in told.items():
            if isinstance(news, Exception) or news.finished:
                self.owned.discard(name)
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

    def add(self, name: str, ids: Sequence[int], params: SamplingParams) -> None:
        """A command. What it raises is no reason to stop for all."""
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
        """A command: let everybody go, tell of it, and end."""
        self.closing = True
        for name in self.owned:
            self.engine.abort(name)
