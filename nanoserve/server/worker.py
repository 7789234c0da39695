"""An engine for an event loop that never waits for it.

Built in the book: day19. Edit there, then run book/tangle.py.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from weakref import WeakValueDictionary

from nanoserve.engine.engine import Engine
from nanoserve.engine.safety import check_request
from nanoserve.sampling import SamplingParams
from nanoserve.server.answer import Answer, Busy, EngineError, Mailbox, News, Stopped, is_last
from nanoserve.server.thread import ENDED, EngineThread, Stats

LAST_STEP = 30.0  # seconds that a step may take once it is to be the last
LONGEST_WAIT = 60.0  # seconds until one comes again: nights are no pace


class Front:
    """What an event loop knows of an engine that a thread steps."""

    def __init__(self, engine: Engine, max_waiting: int = 64):
        if type(max_waiting) is not int or max_waiting < 0:
            what = f"max_waiting must be 0 or more, got {max_waiting!r}"
            raise ValueError(what)
        if engine.has_unfinished():
            what = "the engine has requests of its own: finish them first"
            raise ValueError(what)
        self.engine, self.max_waiting = engine, max_waiting
        self.places = engine.scheduler.max_num_seqs + max_waiting
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = EngineThread(engine, Mailbox(self.deliver))
        self.flying: set[str] = set()  # let in, their end not told yet
        self.answers = WeakValueDictionary()  # those that are read
        self.ends = deque(maxlen=32)  # when the last ones ended, seconds
        self.idle, self.ended = asyncio.Event(), asyncio.Event()
        self.idle.set()
        self.stopping = False

    async def start(self) -> None:
        """Start the thread. RuntimeError the second time."""
        if self.loop is not None:
            raise RuntimeError("an AsyncEngine starts once: make another")
        self.loop = self.thread.mail.loop = asyncio.get_running_loop()
        self.ends.append(self.loop.time())
        self.thread.start()

    def check_open(self) -> None:
        """Stopped unless there is a thread that takes requests.

        RuntimeError on another event loop than that of `start`.
        """
        if self.loop is None:
            raise Stopped("the engine has not been started")
        if self.stopping:
            raise Stopped("the engine is shutting down")
        if self.ended.is_set():
            raise Stopped("the engine's thread has ended")
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError("submit on the event loop of `start`")

    def check_id(self, name: str) -> None:
        """ValueError for what is no name, or that of another."""
        if not isinstance(name, str) or not name:
            raise ValueError(f"request_id must be a text, got {name!r}")
        if name in self.flying:
            taken = f"request id {name!r} is in use"
            raise ValueError(f"{taken}: give another one")

    def check_places(self) -> None:
        """Busy where as many are in flight as may be."""
        if len(self.flying) >= self.places:
            since = self.loop.time() - self.ends[0]
            pace = since / len(self.ends)  # seconds from end to end
            what = f"{len(self.flying)} requests are in, and no more may"
            raise Busy(what, min(max(1.0, pace), LONGEST_WAIT))

    def hear(self, name: str, news: News) -> None:
        """The newest of one request, to whoever reads it."""
        answer = self.answers.get(name)
        if answer is not None:
            answer.put(news)
        if is_last(news):
            self.flying.discard(name)
            self.ends.append(self.loop.time())
        if not self.flying:
            self.idle.set()

    def lose(self, error: EngineError) -> None:
        """Nobody steps any more: whoever is in flight is told why."""
        for name in [*self.flying]:
            self.hear(name, EngineError(str(error)))
        self.ended.set()

    @property
    def healthy(self) -> bool:
        """Whether requests may come: it runs, and is to go on."""
        over = self.stopping or self.ended.is_set()
        return self.loop is not None and not over

    def stats(self) -> Stats:
        """The engine as it stood after its newest step."""
        return self.thread.stats

    @property
    def running(self) -> int:
        """Requests that had a row after the newest step."""
        return self.thread.stats.running

    @property
    def waiting(self) -> int:
        """Requests in flight without one."""
        return max(0, len(self.flying) - self.running)


class Ending(Front):
    """How it ends: nobody new, some grace, and no thread is left."""

    async def stop(self, grace: float = 30.0) -> None:
        """Let nobody in; after `grace` seconds abort who still runs.

        All are told, and the thread is gone. EngineError if its last
        step does not come back.
        """
        if not grace >= 0:
            raise ValueError(f"grace must be 0 or more, got {grace!r}")
        self.stopping = True
        if self.loop is None:
            return
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.idle.wait(), grace)
        self.thread.commands.put((self.thread.close,))
        try:
            await asyncio.wait_for(self.ended.wait(), LAST_STEP)
        except asyncio.TimeoutError:
            error = EngineError("the last step has not come back")
            self.lose(error)
            raise error from None
        self.thread.join()


class AsyncEngine(Ending):
    """One thread steps `engine`; from `start` on, nobody else may.

    All is called on one event loop, and nothing waits for a step, but
    `stop`. In flight are at most the engine's max_num_seqs requests
    and `max_waiting` more.
    """

    async def submit(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """The answer to come. Refused at once, or not at all.

        ValueError for what can never run, Busy where too many are in
        flight, Stopped where nothing runs any more.
        """
        params = params or SamplingParams()
        name = secrets.token_hex(8) if request_id is None else request_id
        self.check_open()
        self.check_id(name)
        self.check_places()
        check_request(self.engine, prompt_ids, params)
        thread, ids = self.thread, tuple(prompt_ids)
        abort = partial(thread.commands.put, (thread.abort, name))
        self.answers[name] = answer = Answer(name, abort)
        self.flying.add(name)
        self.idle.clear()
        thread.mail.watch.asked(name)
        thread.commands.put((thread.add, name, ids, params))
        return answer

    def deliver(self) -> None:
        """On the loop, woken by the mailbox: to each the newest."""
        for name, news in self.thread.mail.take().items():
            if name == ENDED:
                self.lose(news)
            else:
                self.hear(name, news)

    async def __aenter__(self) -> "AsyncEngine":
        await self.start()
        return self

    async def __aexit__(self, error: object, *others: object) -> None:
        await self.stop(30.0 if error is None else 0.0)
