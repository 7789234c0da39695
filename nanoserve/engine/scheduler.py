"""Who reads how many tokens in the next step. No tensor is here.

Built in the book: day16. Edit there, then run book/tangle.py.
"""

from collections import deque
from collections.abc import Iterator, Sequence

from nanoserve.engine.blocks import BlockManager
from nanoserve.engine.plan import Plan, next_share
from nanoserve.engine.request import Request


def check_room(blocks: BlockManager, request: Request) -> None:
    """ValueError where even the whole pool is too small for it."""
    prompt, most = len(request.prompt_ids), request.params.max_tokens
    # The last token is never read: it needs no place in the pool.
    need = blocks.blocks_for(prompt + most - 1)
    if need > blocks.num_blocks:
        raise ValueError(
            f"{prompt} prompt ids and max_tokens {most} need {need} "
            f"blocks, and the pool has {blocks.num_blocks}: shorten one "
            "of them, or make the engine with a larger num_blocks"
        )


class Queues:
    """Who waits, who runs, and the blocks of those that run.

    Both queues are in order of arrival, and all that run came before
    all that wait. At most `max_num_seqs` run. Who runs has blocks for all
    that is known of it; who waits has none.
    """

    def __init__(self, blocks: BlockManager, max_num_seqs: int):
        self.blocks, self.max_num_seqs = blocks, max_num_seqs
        self.running: list[Request] = []
        self.waiting: deque[Request] = deque()
        self.num_preemptions = 0  # so far

    def add(self, request: Request) -> None:
        """To the end of the queue. ValueError for what can never run."""
        check_room(self.blocks, request)
        self.waiting.append(request)

    def grow(self, request: Request) -> bool:
        """Append blocks for all its tokens; none, and False: too few."""
        more = self.blocks.grow(request.table, len(request.tokens))
        request.table += more or []
        return more is not None

    def start(self, request: Request) -> bool:
        """Blocks for one that waits: Day 18 finds some of them filled."""
        return self.grow(request)

    def admit(self) -> bool:
        """Whether the first that waits runs now."""
        full = len(self.running) >= self.max_num_seqs
        if full or not self.waiting or not self.start(self.waiting[0]):
            return False
        self.running.append(self.waiting.popleft())
        return True

    def preempt(self) -> Request:
        """The youngest that runs waits again, with nothing computed."""
        request = self.running.pop()
        self.release(request)
        request.computed = 0
        self.waiting.appendleft(request)
        self.num_preemptions += 1
        return request

    def finish(self, request: Request, reason: str) -> None:
        """End a request, wherever it is: its blocks are free at once."""
        runs = request in self.running
        (self.running if runs else self.waiting).remove(request)
        self.release(request)
        request.finish_reason = reason

    def release(self, request: Request) -> None:
        """Give its blocks back, and forget them."""
        self.blocks.free(request.table)
        request.table = []


class Scheduler(Queues):
    """The one rule: who is behind reads on, so much in a step.

    What runs comes first, then what waits, the oldest first in both. A
    request that has read all that is known of it gets its next token.
    A step reads at most `max_num_batched_tokens`.
    """

    def __init__(
        self,
        blocks: BlockManager,
        max_num_seqs: int = 16,
        max_num_batched_tokens: int = 512,
    ):
        super().__init__(blocks, max_num_seqs)
        self.max_num_batched_tokens = max_num_batched_tokens

    def schedule(self) -> Plan:
        """The next step. Nothing counts as read until `update`."""
        preempted = self.make_room()
        shares, left = [], self.max_num_batched_tokens
        for request in self.in_turn():
            shares.append(next_share(request, left))
            left -= len(shares[-1].ids)
            if not left:
                break
        return Plan(tuple(shares), tuple(preempted))

    def make_room(self) -> list[Request]:
        """Let all that run grow; where one cannot, the youngest waits."""
        stopped, i = [], 0
        while i < len(self.running):
            if self.grow(self.running[i]):
                i += 1
            else:
                stopped.append(self.preempt())
        return stopped

    def in_turn(self) -> Iterator[Request]:
        """All that run, then who is admitted when its turn comes."""
        yield from list(self.running)
        while self.admit():
            yield self.running[-1]

    def update(self, plan: Plan, ids: Sequence[int]) -> list[Request]:
        """Count what was read, append what was drawn: who got a token.

        `ids` has one for each share that samples, in order. What was
        ended while the step ran is left alone.
        """
        drawn, got = dict(zip(plan.sampling, ids, strict=True)), []
        for share in plan.shares:
            request = share.request
            if request.finish_reason:
                continue
            request.computed += len(share.ids)
            if share in drawn:
                request.tokens.append(drawn[share])
                got.append(request)
                if reason := request.ending():
                    self.finish(request, reason)
        return got
