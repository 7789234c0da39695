"""An engine that plans the next step while this one runs.

Built in the book: day24. Edit there, then run book/tangle.py.
"""

from nanoserve.engine.engine import Engine
from nanoserve.engine.request import Request, RequestOutput

PENDING = -1  # a token that the card knows, and the host does not yet


class Lagging(Engine):
    """An Engine with a step on its way, which an abort or an audit awaits.

    `settle`, its heir's, waits for that step and tells what it gave.
    """

    def begin(self) -> None:
        """Nothing runs and nothing is kept. After furnish."""
        # The newest step: its ids to come, and whose they are.
        self.started: tuple | None = None
        self.kept: list[RequestOutput] = []  # to be told by the next step

    def end(self, request: Request) -> None:
        """Whether its newest token, known now, is its last.

        That it is full was seen when the step began.
        """
        reason = request.ending()
        if reason and request.finish_reason is None:
            self.scheduler.finish(request, reason)
        elif reason:
            request.finish_reason = reason

    def has_unfinished(self) -> bool:
        """Whether a request runs, or the next step has news."""
        return bool(self.requests or self.kept)

    def abort(self, request_id: str) -> bool:
        """End a request; the next step tells of it. False: none runs."""
        self.kept += self.settle()
        return super().abort(request_id)

    def audit(self) -> None:
        """AssertionError where the books disagree."""
        self.kept += self.settle()
        super().audit()


class AheadEngine(Lagging):
    """An Engine whose runner starts a step and does not wait for it.

    The host lags one step: it starts step n before it knows what step
    n - 1 chose. A request that ended there without the host knowing is
    in step n once too often, and what it got is dropped.
    """

    def step(self, only_ended: bool = False) -> list[RequestOutput]:
        """Start a step, and tell what the one before it gave."""
        kept, self.kept = self.kept, []
        told = [o for o in kept if o.finished or not only_ended]
        if not self.runner.can_lag:
            # Penalties and the like look at every token so far: nothing
            # may be on its way.
            told += self.settle(only_ended)
        plan = self.scheduler.schedule()
        coming = self.runner.launch(plan) if plan.shares else None
        told += self.settle(only_ended)
        if coming is not None:
            due = [share.request for share in plan.sampling]
            self.scheduler.update(plan, [PENDING] * len(due))
            self.started = coming, due
        told += self.aborted.values()
        self.aborted.clear()
        return told

    def settle(self, only_ended: bool = False) -> list[RequestOutput]:
        """Wait for the step that was started: what its requests got."""
        if self.started is None:
            return []
        (coming, due), self.started = self.started, None
        told = []
        for request, token, logprob in zip(due, *coming.result(), strict=True):
            if self.requests.get(request.request_id) is not request:
                continue  # it had ended: nobody waits for this one
            request.tokens[-1] = token
            request.logprobs.append(logprob)
            self.end(request)
            self.write(request)
            if request.finish_reason or not only_ended:
                told.append(self.output(request))
        return told
