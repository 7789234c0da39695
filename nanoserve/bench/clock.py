"""The clock around an engine that answers a workload."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nanoserve.bench.workloads import Conversation
from nanoserve.engine.engine import Engine
from nanoserve.sampling import SamplingParams


@dataclass
class Run:
    """What a contestant wrote, and in what time.

    `answers` has, for each conversation, the ids of each turn's answer. `first` has the seconds
    from when a turn could be asked until its first id, `gaps` those between ids, where known.
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
        return sum(len(ids) for conversation in self.answers for ids in conversation)

    @property
    def rate(self) -> float:
        """New tokens a second."""
        return self.new_tokens / self.seconds


def said_before(conversation: Conversation, answers: Sequence[Sequence[int]]) -> list[int]:
    """The prompt of the turn that follows these answers: all ids before, and its own."""
    ids = []
    for turn, answer in zip(conversation, answers, strict=False):
        ids += [*turn.ids, *answer]
    return [*ids, *conversation[len(answers)].ids]


def time_engine(
    engine: Engine,
    conversations: Sequence[Conversation],
    temperature: float,
    tick: Callable[[int], object],
    waits: bool = True,
) -> Run:
    """Every conversation at once, each turn as soon as the one before is answered.

    `tick` is told of new tokens, step by step; without `waits` the engine tells of ends alone, and
    nobody knows how long a token took. The engine must be idle.
    """
    run = Run([[] for _ in conversations])
    asked, latest, length = {}, {}, {}

    def ask(i: int) -> None:
        answers, conversation = run.answers[i], conversations[i]
        name, turn = f"bench-{i}-{len(answers)}", conversation[len(answers)]
        prompt = said_before(conversation, answers)
        params = SamplingParams(
            temperature=temperature, max_tokens=turn.new, ignore_eos=True, seed=i
        )
        engine.add_request(name, prompt, params)
        asked[name], latest[name], length[name] = i, time.perf_counter(), 0
        run.prompt_tokens += len(prompt)

    start = time.perf_counter()
    try:
        for i in range(len(conversations)):
            ask(i)
        while asked:
            outputs, now, new = engine.step(only_ended=not waits), time.perf_counter(), 0
            for output in outputs:
                name, count = output.request_id, len(output.token_ids)
                if waits:
                    (run.gaps if length[name] else run.first).append(now - latest[name])
                new += count - length[name]
                latest[name], length[name] = now, count
                if output.finished:
                    i = asked.pop(name)
                    run.cached_tokens += output.num_cached_tokens
                    run.answers[i].append(output.token_ids)
                    if len(run.answers[i]) < len(conversations[i]):
                        ask(i)
            tick(new)
    finally:  # after an error or Ctrl-C nothing may go on
        for name in asked:
            engine.abort(name)
    run.seconds = time.perf_counter() - start
    return run
