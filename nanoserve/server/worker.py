"""An engine for an event loop that never waits for it."""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Sequence
from functools import partial
from weakref import WeakValueDictionary

from nanoserve.engine.engine import Engine
from nanoserve.engine.safety import check_request
from nanoserve.sampling import SamplingParams
from nanoserve.server.answer import (
    Answer,
    Busy,
    EngineError,
    Mailbox,
    Stopped,
    Watch,
)
from nanoserve.server.thread import ENDED, EngineThread, Stats

LAST_STEP = 30.0  # seconds that a step may take after the grace


class AsyncEngine:
    """One thread steps `engine`; from `start` on, nobody else may.

    All methods are called on one event loop, and none of them waits
    for a step, but `stop`. In flight are at most the engine's
    max_num_seqs requests and `max_waiting` more.
    """

    def __init__(self, engine: Engine, max_waiting: int = 64):
        if type(max_waiting) is not int or max_waiting < 0:
            what = f"max_waiting must be 0 or more, got {max_waiting!r}"
            raise ValueError(what)
        if engine.has_unfinished():
            what = "the engine has requests of its own: finish them first"
            raise ValueError(what)
        self.engine, self.max_waiting = engine, max_waiting
        self.places = engine.scheduler.max_num_seqs + max_waiting
        self.thread: EngineThread | None = None
        self.flying: set[str] = set()  # let in, their end not told yet
        self.answers = WeakValueDictionary()  # of those, if still read
        self.ends = deque(maxlen=32)  # when the last ones ended, seconds
        self.stopping = False
        self.watch: Watch | None = None  # set it before the start

    async def start(self) -> None:
        """Start the thread. RuntimeError the second time."""
        if self.thread is not None:
            raise RuntimeError("an AsyncEngine starts once: make another")
        self.loop = asyncio.get_running_loop()
        self.idle, self.ended = asyncio.Event(), asyncio.Event()
        self.idle.set()
        self.mail = Mailbox(self.loop, self.deliver, self.watch)
        self.thread = EngineThread(self.engine, self.mail)
        self.ends.append(self.loop.time())
        self.thread.start()

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
        if not isinstance(name, str) or not name:
            raise ValueError(f"request_id must be a text, got {name!r}")
        if name in self.flying:
            raise ValueError(f"request id {name!r} is in use: give another one")
        check_request(self.engine, prompt_ids, params)
        self.check_places()
        thread, ids = self.thread, tuple(prompt_ids)
        abort = partial(thread.commands.put, (thread.abort, name))
        answer = Answer(name, abort)
        self.flying.add(name)
        self.answers[name] = answer
        self.idle.clear()
        if self.watch:
            self.watch.asked(name)
        thread.commands.put((thread.add, name, ids, params))
        return answer

    def check_open(self) -> None:
        """Stopped unless a thread is there to step."""
        if self.thread is None:
            raise Stopped("the engine has not been started")
        if self.stopping:
            raise Stopped("the engine is shutting down")
        if self.ended.is_set():
            raise Stopped("the engine's thread has ended")
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError("submit on the event loop that called start")

    def check_places(self) -> None:
        """Busy where as many are in flight as may be."""
        if len(self.flying) >= self.places:
            since = self.loop.time() - self.ends[0]
            pace = since / len(self.ends)  # seconds from end to end
            raise Busy(f"{len(self.flying)} requests are in flight", max(1.0, pace))

    def deliver(self) -> None:
        """On the loop, woken by the thread: to each the newest."""
        for name, news in self.mail.take().items():
            if name == ENDED:
                self.ended.set()
                continue
            answer = self.answers.get(name)
            if answer is not None:
                answer.put(news)
            if isinstance(news, Exception) or news.finished:
                self.flying.discard(name)
                self.ends.append(self.loop.time())
        if not self.flying:
            self.idle.set()

    async def stop(self, grace: float = 30.0) -> None:
        """Let nobody in; after `grace` seconds abort who still runs.

        All are told, and the thread is gone. EngineError if its last
        step does not come back.
        """
        if not grace >= 0:
            raise ValueError(f"grace must be 0 seconds or more, got {grace!r}")
        self.stopping = True
        if self.thread is None:
            return
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.idle.wait(), grace)
        self.thread.commands.put((self.thread.close,))
        try:
            await asyncio.wait_for(self.ended.wait(), LAST_STEP)
        except asyncio.TimeoutError:
            self.give_up()
        self.thread.join()

    def give_up(self) -> None:
        """A step that does not return: tell everybody from here."""
        why = f"a step has not come back {LAST_STEP:.0f} s after the grace"
        self.mail.put({name: EngineError(why) for name in self.flying})
        self.deliver()
        raise EngineError(f"{why}: its thread is left behind")

    async def __aenter__(self) -> "AsyncEngine":
        await self.start()
        return self

    async def __aexit__(self, error: object, *others: object) -> None:
        await self.stop(30.0 if error is None else 0.0)

    @property
    def healthy(self) -> bool:
        """Whether requests may come: it runs, and is not shutting down."""
        return self.thread is not None and not (self.stopping or self.ended.is_set())

    def stats(self) -> Stats:
        """The engine as it stood after its newest step."""
        return self.thread.stats

    @property
    def running(self) -> int:
        """Requests that have a row, as of the newest step."""
        return self.thread.stats.running if self.thread else 0

    @property
    def waiting(self) -> int:
        """Requests in flight that have none."""
        return max(0, len(self.flying) - self.running)
