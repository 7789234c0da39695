"""A mix of requests rehearsed: the scheduler without a model.

Built in the book: day17. Edit there, then run book/tangle.py.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from nanoserve.engine.blocks import BlockManager
from nanoserve.engine.plan import Plan
from nanoserve.engine.request import Request
from nanoserve.engine.scheduler import Scheduler, check_room
from nanoserve.sampling import SamplingParams

GOES_ON = 0  # the two tokens of a rehearsal
ENDS = 1


class Wish(NamedTuple):
    """A request to come: how many tokens its prompt and answer have.

    It might write `most` (where None, no more than it does), and comes
    before step `at`, counted from 0.
    """

    prompt: int
    new: int
    most: int | None = None
    at: int = 0

    def request(self, name: str) -> Request:
        """The request. ValueError for one that cannot be."""
        most = self.new if self.most is None else self.most
        if self.prompt < 1 or not 1 <= self.new <= most or self.at < 0:
            raise ValueError(
                f"wish {name}, {self}: wanted are prompt 1 or more, new "
                "from 1 to most, at 0 or more"
            )
        params = SamplingParams(max_tokens=most, stop_token_ids=(ENDS,), seed=0)
        return Request(name, (GOES_ON,) * self.prompt, params)


@dataclass
class Record:
    """What a scheduler did, a step after another; requests by id."""

    held: list[int] = field(default_factory=list)  # blocks
    read: list[int] = field(default_factory=list)  # tokens
    stopped: list[list[str]] = field(default_factory=list)
    got: dict[str, list[int]] = field(default_factory=dict)  # steps
    again: int = 0  # tokens that had been read before
    furthest: dict[Request, int] = field(default_factory=dict, repr=False, compare=False)

    def note(self, plan: Plan, held: int) -> None:
        """One step more, with so many blocks held in it."""
        for share in plan.sampling:
            name = share.request.request_id
            self.got.setdefault(name, []).append(self.steps)
        for share in plan.shares:
            end = share.start + len(share.ids)
            before = self.furthest.get(share.request, 0)
            self.again += max(0, min(end, before) - share.start)
            self.furthest[share.request] = max(end, before)
        self.held.append(held)
        self.read.append(sum(len(share.ids) for share in plan.shares))
        self.stopped.append([r.request_id for r in plan.preempted])

    @property
    def steps(self) -> int:
        """How many there were."""
        return len(self.held)

    @property
    def peak(self) -> int:
        """The most blocks that were held in a step."""
        return max(self.held, default=0)

    @property
    def preemptions(self) -> int:
        """How often somebody was stopped."""
        return sum(map(len, self.stopped))


def watch(scheduler: Scheduler) -> Record:
    """The record of all that this scheduler plans from now on."""
    record, plain, blocks = Record(), scheduler.schedule, scheduler.blocks

    def schedule() -> Plan:
        plan = plain()
        record.note(plan, blocks.num_blocks - blocks.num_free)
        return plan

    scheduler.schedule = schedule
    return record


def play(
    scheduler: Scheduler,
    wishes: Sequence[tuple[Request, Wish]],
    most_steps: int,
) -> Record:
    """Let each come in its step, and step until all have ended.

    RuntimeError, with the number, where `most_steps` are not enough.
    """
    record, new = watch(scheduler), {r: wish.new for r, wish in wishes}
    coming = deque(sorted(wishes, key=lambda pair: pair[1].at))
    while coming or scheduler.running or scheduler.waiting:
        if record.steps == most_steps:
            raise RuntimeError(f"no end after {most_steps} steps")
        while coming and coming[0][1].at <= record.steps:
            scheduler.add(coming.popleft()[0])
        plan = scheduler.schedule()
        due = [share.request for share in plan.sampling]
        last = [len(r.output_ids) + 1 == new[r] for r in due]
        scheduler.update(plan, [ENDS if end else GOES_ON for end in last])
    return record


def pool_for(requests: Sequence[Request], num_blocks: int | None, block_size: int) -> BlockManager:
    """So many blocks, or, where None, more than they can ever hold.

    ValueError where one of them could never run.
    """
    if num_blocks is None:
        most = (len(r.prompt_ids) + r.params.max_tokens for r in requests)
        num_blocks = 1 + sum(-(-n // max(1, block_size)) for n in most)
    blocks = BlockManager(num_blocks, block_size)
    for request in requests:
        check_room(blocks, request)
    return blocks


def check_limits(**limits: int) -> None:
    """ValueError for a scheduler that could not let anybody in."""
    for name, limit in limits.items():
        if limit < 1:
            raise ValueError(f"{name} must be 1 or more, got {limit}")


def rehearse(
    wishes: Sequence[Wish],
    num_blocks: int | None = None,
    block_size: int = 16,
    max_num_seqs: int = 16,
    max_num_batched_tokens: int = 512,
    kind: type[Scheduler] = Scheduler,
    most_steps: int = 100_000,
) -> Record:
    """Serve them all without a model; the first one's id is "0".

    Settings are the engine's; None is a pool that nobody can exhaust.
    ValueError for what an engine refuses, RuntimeError where there is
    no end after `most_steps`.
    """
    check_limits(
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
    )
    requests = [wish.request(str(i)) for i, wish in enumerate(wishes)]
    blocks = pool_for(requests, num_blocks, block_size)
    scheduler = kind(blocks, max_num_seqs, max_num_batched_tokens)
    pairs = list(zip(requests, wishes, strict=True))
    return play(scheduler, pairs, most_steps)
