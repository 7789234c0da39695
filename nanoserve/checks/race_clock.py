"""The clock of a race on an engine that plays a script, with a time of its own. Day 26."""

import time
from dataclasses import asdict, dataclass, field
from inspect import signature
from typing import Any

from nanoserve.bench.clock import Run, said_before, time_engine
from nanoserve.bench.huggingface import time_theirs, waves
from nanoserve.bench.workloads import Turn
from nanoserve.checks.common import agree, attempt, holds
from nanoserve.engine.request import RequestOutput
from nanoserve.sampling import SamplingParams

ASKING = 0.125  # seconds of the script's time that add_request takes
TALKS = ((Turn((1, 2), 2), Turn((3,), 1)), (Turn((4, 5), 3),))
# Of each step: its seconds, and (request, ids so far, how many of its prompt were cached if ended).
SCRIPT = (
    (1.0, (("bench-0-0", [5], None),)),
    (0.5, (("bench-0-0", [5, 6], 1), ("bench-1-0", [7], None), ("bench-9-0", [1, 2], 7))),
    (0.25, (("bench-1-0", [7, 8, 9], 2),)),
    (2.0, (("bench-0-1", [4], 4),)),
)
FAILS = KeyboardInterrupt("a script's own")


@dataclass
class Scripted:
    """Takes requests, tells of them by a script, and keeps the time."""

    script: tuple
    most: int = 99  # requests that it takes
    now: float = 100.0
    steps: int = 0
    asked: dict[str, tuple] = field(default_factory=dict)
    aborted: list[str] = field(default_factory=list)
    quiet: list[bool] = field(default_factory=list)

    def clock(self) -> float:
        """Seconds; they pass in add_request and step alone."""
        return self.now

    def add_request(self, name: str, prompt: list[int], params: SamplingParams) -> None:
        if len(self.asked) == self.most:
            raise FAILS
        self.now += ASKING
        self.asked[name] = prompt, params

    def step(self, only_ended: bool = False) -> list[RequestOutput]:
        self.quiet.append(only_ended)
        if self.steps == len(self.script):
            raise FAILS
        seconds, told = self.script[self.steps]
        self.steps += 1
        self.now += seconds
        return [
            RequestOutput(name, [], ids, "", cached is not None, "length", None, cached or 0)
            for name, ids, cached in told
            if cached is not None or not only_ended
        ]

    def abort(self, name: str) -> bool:
        self.aborted.append(name)
        return True


def timed(engine: Scripted, ticks: list[int], **more: Any) -> Run:
    """A run of the two conversations."""
    return time_engine(engine, TALKS, 0.5, ticks.append, clock=engine.clock, **more)


def check_clock() -> None:
    """Every number of a run, to the bit; what is asked; what is left after an error."""
    engine, ticks = Scripted(SCRIPT), []
    run = ended(engine, ticks)
    agree("the answers", run.answers, [[[5, 6], [4]], [[7, 8, 9]]])
    counts = run.new_tokens, run.prompt_tokens, run.cached_tokens
    agree("new tokens, prompt tokens, cached ones", counts, (6, 2 + 5 + 2, 1 + 2 + 4))
    what = f"seconds to the first ids, where add_request takes {ASKING} and counts"
    agree(what, run.first, [1.25, 1.625, 2.375])
    agree("seconds between ids", run.gaps, [0.5, 0.375, 0.0])
    agree("seconds of the whole run", run.seconds, 3.75 + 3 * ASKING)
    agree("tokens a second", run.rate, 6 / 4.125)
    agree("new tokens of each step", ticks, [1, 2, 2, 1])
    agree("whether the engine was told to be quiet", engine.quiet, [False] * 4)
    check_asked(engine.asked)
    agree("who was aborted in a run without an error", engine.aborted, [])
    check_quiet(run)
    check_error()


def check_asked(asked: dict[str, Any]) -> None:
    """Prompts with all that was said before, exact lengths, a seed for each conversation."""
    prompts = {"bench-0-0": [1, 2], "bench-1-0": [4, 5], "bench-0-1": [1, 2, 5, 6, 3]}
    agree("the prompts", {name: [*ids] for name, (ids, _) in asked.items()}, prompts)
    for name, (_, params) in asked.items():
        i, turn = int(name[6]), int(name[8])
        wanted = SamplingParams(
            temperature=0.5, max_tokens=TALKS[i][turn].new, ignore_eos=True, seed=i
        )
        agree(f"what {name} is asked with", asdict(params), asdict(wanted))


def check_quiet(loud: Run) -> None:
    """Without `waits`: the same ids and counts, and no times of ids."""
    engine, ticks = Scripted(SCRIPT), []
    run = ended(engine, ticks, waits=False)
    agree("answers, told of ends alone", run.answers, loud.answers)
    agree("the sum of what it ticked", sum(ticks), 6)
    agree("the times of ids", (run.first, run.gaps), ([], []))
    agree("whether the engine was told to be quiet", engine.quiet, [True] * 4)


def ended(engine: Scripted, ticks: list[int], **more: Any) -> Run:
    """A run that ends when its script does."""
    try:
        return attempt("time_engine", timed, engine, ticks, **more)
    except KeyboardInterrupt as error:
        if error is not FAILS:
            raise  # the reader's own
    raise AssertionError(
        f"time_engine: after {len(engine.script)} steps all answers have ended, and it steps on. "
        f"It asked for {', '.join(engine.asked)}: who still is in `flying`?"
    )


def check_error() -> None:
    """An error comes through, of a step and of a request, and who is in flight is aborted."""
    for what, engine, left in (
        ("a step", Scripted(SCRIPT[:3]), ["bench-0-1"]),
        ("the second add_request", Scripted(SCRIPT, most=1), ["bench-0-0"]),
    ):
        try:
            timed(engine, [])
        except KeyboardInterrupt as error:
            holds(f"the error of {what} must come through", error is FAILS)
        else:
            raise AssertionError(f"time_engine: the error of {what} must come through.")
        agree(f"who is aborted after an error of {what}", engine.aborted, left)


def check_books() -> None:
    """said_before and waves, by hand; clocks that never go back."""
    for race in (time_engine, time_theirs):
        own = signature(race).parameters["clock"].default
        agree(f"{race.__name__}'s own clock", own, time.perf_counter)
    talk = (Turn((1, 2), 1), Turn((3,), 1), Turn((5,), 1))
    for answers, wanted in (([], [1, 2]), ([[7]], [1, 2, 7, 3]), ([[7], [8]], [1, 2, 7, 3, 8, 5])):
        agree(f"said_before, {len(answers)} answers", said_before(talk, answers), wanted)
    mix = [talk, talk[:1], talk[:2], talk[:1], talk]
    wanted = [(0, [0, 1]), (0, [2, 3]), (0, [4]), (1, [0, 2]), (1, [4]), (2, [0, 4])]
    agree("waves of two", [*waves(mix, 2)], wanted)
    agree("waves where the first has one turn", [*waves(mix[1:], 4)],
          [(0, [0, 1, 2, 3]), (1, [1, 3]), (2, [3])])  # fmt: skip
    agree("waves of one", [i for _, (i,) in waves(mix, 1)], [0, 1, 2, 3, 4, 0, 2, 4, 0, 4])
