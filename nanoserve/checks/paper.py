"""A pool and a model of paper: what the scheduler plans is done with a list of hashes. Day 16.

A token's keys and values are known to follow from it and all before it, so on paper they are the
hash of that prefix. A slot holds one, or None where nobody may read. A cache of prefixes (Day 18)
must then hit what is there: one hash says all that stands before.
"""

from collections.abc import Callable, Sequence

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.paper_hits import Hits
from nanoserve.checks.paper_texts import LETTERS, known_by, text_of
from nanoserve.engine.audit import audit
from nanoserve.engine.desk import new_scheduler
from nanoserve.engine.plan import Plan, Share
from nanoserve.engine.request import Request
from nanoserve.sampling import SamplingParams


def names(requests: Sequence[Request]) -> list[str]:
    """Short enough for a message, where a request says all that it knows."""
    return [request.request_id for request in requests]


class Paper:
    """A scheduler, its blocks, and slots of paper. Every step is looked at from all sides."""

    def __init__(self, num_blocks: int, size: int, rows: int, budget: int, caching: bool = False):
        self.what = f"{num_blocks} blocks of {size}, {rows} rows, {budget} tokens a step"
        given = caching, num_blocks, size, rows, budget
        self.scheduler = attempt(self.what, new_scheduler, *given)
        self.blocks = self.scheduler.blocks
        self.hits = Hits(self) if caching else None
        self.slots = [None] * (num_blocks * size)
        self.size, self.rows, self.budget = size, rows, budget
        self.arrived: list[Request] = []
        self.chains: dict[Request, list[int]] = {}
        self.stopped = {}  # how often each request was preempted
        self.written: dict[Request, int] = {}  # tokens of each, in the step that runs
        self.steps = 0

    def add(
        self, prompt: Sequence[int], params: SamplingParams, salt: str | None = None
    ) -> Request:
        """A request, waiting. ValueError where the scheduler refuses it."""
        request = Request(f"r{len(self.arrived)}", tuple(prompt), params, salt)
        self.scheduler.add(request)
        self.arrived.append(request)
        return request

    def abort(self, request: Request) -> None:
        """End one that has not ended."""
        attempt(f"{self.what}: an abort", self.scheduler.finish, request, "abort")
        agree(f"{self.what}: the reason after an abort", request.finish_reason, "abort")
        self.look()

    @property
    def alive(self) -> list[Request]:
        """Those that have not ended, in order of arrival."""
        return [request for request in self.arrived if request.finish_reason is None]

    def step(self, meanwhile: Callable[[], None] | None = None) -> Plan:
        """Plan, read and draw, update; `meanwhile` something may happen to the requests."""
        before = [(r, list(r.tokens), r.computed) for r in self.alive]
        if self.hits:
            self.hits.remember()
        plan = attempt(f"{self.what}: schedule", self.scheduler.schedule)
        must = f"{self.what}: `schedule` must return a Plan"
        holds(must, hasattr(plan, "shares"), f"it gave {plan!r:.60}")
        self.check_plan(plan, before)
        chains = [self.chain(share) for share in plan.shares]
        for share, chain in zip(plan.shares, chains, strict=True):
            self.write(share, chain)
        for share, chain in zip(plan.shares, chains, strict=True):
            places = self.places(share.request)[: len(chain)]
            name = f"{self.what}: {share.request.request_id}"
            agree(f"{name} reads, by place", [self.slots[at] for at in places], chain)
        drawn = [
            chain[-1] // 7 % LETTERS
            for share, chain in zip(plan.shares, chains, strict=True)
            if share.samples
        ]
        if meanwhile:
            meanwhile()
        due = [s.request for s in plan.shares if s.samples and s.request.finish_reason is None]
        got = attempt(f"{self.what}: update", self.scheduler.update, plan, drawn)
        must = f"{self.what}: `update` must return a list of the requests that got a token"
        holds(must, isinstance(got, Sequence), f"it gave {got!r:.60}")
        agree(
            f"{self.what}: who got a token",
            [r.request_id for r in got],
            [r.request_id for r in due],
        )
        for share in plan.shares:
            name, end = share.request.request_id, share.start + len(share.ids)
            if share.request.finish_reason is None:
                agree(f"{self.what}: {name}, computed after `update`", share.request.computed, end)
        for request in got:
            self.check_ending(request)
        self.steps += 1
        self.written.clear()
        self.look()
        return plan

    def check_ending(self, request: Request) -> None:
        """Whether one that got a token has ended, and why, is as its stop ids and length say."""
        count, params = len(request.output_ids), request.params
        wanted = "length" if count >= params.max_tokens else None
        if request.tokens[-1] in params.stop_token_ids:
            wanted = "stop"
        has = f"{self.what}: {request.request_id} has {count} of its {params.max_tokens} tokens"
        agree(f"{has} (max_tokens): its finish_reason", request.finish_reason, wanted)

    def chain(self, share: Share) -> list[int]:
        """What a share's tokens and those before them are known by."""
        request, end = share.request, share.start + len(share.ids)
        chain = self.chains[request] = known_by(
            request.tokens, self.chains.get(request, ()), request.cache_salt
        )
        return chain[:end]

    def places(self, request: Request) -> list[int]:
        """The slots of a text, in order."""
        size = self.size
        return [b * size + i for b in request.table for i in range(size)]

    def write(self, share: Share, chain: list[int]) -> None:
        """Keys and values of a share's tokens, on paper."""
        name = f"{self.what}: {share.request.request_id}"
        places, start, end = self.places(share.request), share.start, len(chain)
        agree(f"{name} reads", list(share.ids), share.request.tokens[start:end])
        holds(f"{name} must have blocks for {end} tokens", end <= len(places), f"{places}")
        self.written[share.request] = end
        for at in range(start, end):
            self.slots[places[at]] = chain[at]

    def look(self) -> None:
        """Between two steps: the audit, the order of the queues, and poison in what is free."""
        attempt(f"{self.what}, after step {self.steps}: audit", audit, self.scheduler)
        queued = [*self.scheduler.running, *self.scheduler.waiting]
        agree(f"{self.what}: the queues, in order of arrival", names(queued), names(self.alive))
        ends = {r: max(r.computed, self.written.get(r, 0)) for r in self.scheduler.running}
        kept = {at for r, end in ends.items() for at in self.places(r)[:end]}
        for block in self.hits.found() if self.hits else ():
            kept.update(range(block * self.size, (block + 1) * self.size))
        self.slots = [known if at in kept else None for at, known in enumerate(self.slots)]

    def check_plan(self, plan: Plan, before: list[tuple[Request, list[int], int]]) -> None:
        """Budget, rows, order, who reads what, who was stopped; that nobody starves or idles."""
        shares, what = plan.shares, f"{self.what}, step {self.steps}"
        readers = [share.request for share in shares]
        for request in plan.preempted:
            older = self.arrived.index(request)
            count = self.stopped[request] = self.stopped.get(request, 0) + 1
            if not self.hits:  # who finds a duplicate of what it gave back needs less than before
                holds(f"{what}: one is stopped at most once for each older one", count <= older)
                holds(f"{what}: who was stopped waits", request not in self.scheduler.running)
        read = sum(len(share.ids) for share in shares)
        holds(f"{what}: a step reads at most its budget", read <= self.budget, f"{read} tokens")
        holds(f"{what}: no more run than there are rows", len(self.scheduler.running) <= self.rows)
        agree(f"{what}: who reads", names(readers), names(self.alive[: len(readers)]))
        agree(f"{what}: who runs and who reads", names(readers), names(self.scheduler.running))
        stopped = {id(request) for request in plan.preempted}
        for request, tokens, computed in before:
            agree(f"{what}: the tokens that are known", request.tokens, tokens)
            start = 0 if id(request) in stopped else computed
            if self.hits and not start:
                start = self.hits.check(what, request, waited=not computed)
            agree(f"{what}: what is computed before update", request.computed, start)
        for share in shares:
            tokens, end = share.request.tokens, share.start + len(share.ids)
            name = f"{what}, {share.request.request_id}"
            agree(f"{name}: where it begins to read", share.start, share.request.computed)
            holds(f"{name}: it must read something", len(share.ids) > 0)
            agree(f"{name}: whether it samples", share.samples, end == len(tokens))
            holds(f"{name}: it reads all it can", end == len(tokens) or read == self.budget)
        if self.alive:
            holds(f"{what}: somebody must read", bool(shares))
        waiting = self.scheduler.waiting
        if waiting and read < self.budget and len(readers) < self.rows:
            need, free = self.blocks.blocks_for(len(waiting[0].tokens)), self.blocks.num_free
            if self.hits:
                need -= self.hits.held(waiting[0])
            holds(f"{what}: who fits must not wait", need > free, f"{need} blocks of {free} free")

    def check_end(self) -> None:
        """Every text is what it must be, and every block is free."""
        for request in self.arrived:
            if request.finish_reason == "abort":
                continue
            wanted = text_of(request.prompt_ids, request.params, request.cache_salt)
            count = self.stopped.get(request, 0)
            what = f"{self.what}: the text of {request.request_id}, stopped {count} times"
            agree(what, (request.output_ids, request.finish_reason), wanted)
        agree(f"{self.what}: free blocks at the end", self.blocks.num_free, self.blocks.num_blocks)
