"""The clock around an engine that answers a workload.

Built in the book: day26. Edit there, then run book/tangle.py.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nanoserve.bench.workloads import Conversation
from nanoserve.engine.engine import Engine
from nanoserve.engine.request import RequestOutput
from nanoserve.sampling import SamplingParams


@dataclass
class Run:
    """What a contestant wrote, and in what time.

    `answers` has, for each conversation, the ids of each turn's answer.
    `first` has the seconds from when a turn could be asked until its
    first id, `gaps` those between ids, where known.
    """

    answers: list[list[list[int]]]
    seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)

    @property
    def new_tokens(self) -> int:
        """Ids in all answers."""
        return sum(len(ids) for turns in self.answers for ids in turns)

    @property
    def rate(self) -> float:
        """New tokens a second."""
        return self.new_tokens / self.seconds


def said_before(conversation: Conversation, answers: Sequence[Sequence[int]]) -> list[int]:
    """The prompt of the next turn: all ids before, and its own."""
    ids = []
    for turn, answer in zip(conversation, answers, strict=False):
        ids += [*turn.ids, *answer]
    return [*ids, *conversation[len(answers)].ids]


@dataclass
class Flight:
    """A turn that is being answered: whose, its newest id's time."""

    conversation: int
    latest: float
    ids: int = 0


class Asker:
    """Asks an engine turn after turn, and notes in `run` who got what.

    Without `waits` the engine tells of ends alone: no times of ids.
    """

    def __init__(
        self,
        engine: Engine,
        conversations: Sequence[Conversation],
        temperature: float,
        waits: bool,
        clock: Callable[[], float],
    ):
        self.engine, self.conversations = engine, conversations
        self.temperature, self.waits = temperature, waits
        self.clock, self.run = clock, Run([[] for _ in conversations])
        self.flying: dict[str, Flight] = {}  # by the request's name

    def ask(self, i: int) -> None:
        """The next turn of conversation i, exactly as long as wanted."""
        turns, answers = self.conversations[i], self.run.answers[i]
        prompt = said_before(turns, answers)
        params = SamplingParams(
            temperature=self.temperature,
            max_tokens=turns[len(answers)].new,
            ignore_eos=True,
            seed=i,
        )
        asked = self.clock()  # what the engine does from here on counts
        name = f"bench-{i}-{len(answers)}"
        self.engine.add_request(name, prompt, params)
        self.flying[name] = Flight(i, asked)
        self.run.prompt_tokens += len(prompt)

    def hear(self, output: RequestOutput, now: float) -> int:
        """What a step tells of a turn; how many of its ids are new."""
        flight = self.flying.get(output.request_id)
        if flight is None:  # left from a run that was broken off
            return 0
        new = len(output.token_ids) - flight.ids
        for _ in range(new):
            if self.waits:
                waits = self.run.gaps if flight.ids else self.run.first
                waits.append(now - flight.latest)
            flight.latest, flight.ids = now, flight.ids + 1
        if output.finished:
            self.end(output)
        return new

    def end(self, output: RequestOutput) -> None:
        """A turn is answered, and the next one can be asked."""
        i = self.flying.pop(output.request_id).conversation
        self.run.cached_tokens += output.num_cached_tokens
        self.run.answers[i].append(output.token_ids)
        if len(self.run.answers[i]) < len(self.conversations[i]):
            self.ask(i)


def time_engine(
    engine: Engine,
    conversations: Sequence[Conversation],
    temperature: float,
    tick: Callable[[int], object],
    waits: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Run:
    """All at once, each turn as soon as the one before is answered.

    `tick` is told of new tokens, step by step; without `waits` the
    engine tells of ends alone, and nobody knows how long a token took.
    The engine must be idle, and is idle again in the end.
    """
    start = clock()
    asker = Asker(engine, conversations, temperature, waits, clock)
    try:
        for i in range(len(conversations)):
            asker.ask(i)
        while asker.flying:
            outputs = engine.step(only_ended=not waits)
            now = clock()  # all of a step come at once
            tick(sum(asker.hear(output, now) for output in outputs))
    finally:  # after an error or Ctrl-C nothing may go on
        for name in asker.flying:
            engine.abort(name)
    asker.run.seconds = clock() - start
    return asker.run
