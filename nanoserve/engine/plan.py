"""One step, as the scheduler says it and the runner does it.

Built in the book: day16. Edit there, then run book/tangle.py.
"""

from dataclasses import dataclass

from nanoserve.engine.request import Request


@dataclass(frozen=True, eq=False)
class Share:
    """What a request reads in a step: `ids`, from place `start` on.

    `samples`: they reach its last known token, so that the scores
    behind them choose the next one.
    """

    request: Request
    start: int
    ids: tuple[int, ...]
    samples: bool


@dataclass(frozen=True)
class Plan:
    """One step: its shares, in the order of the row that is read."""

    shares: tuple[Share, ...]
    preempted: tuple[Request, ...] = ()

    @property
    def sampling(self) -> list[Share]:
        """The shares whose requests get a token, in order."""
        return [share for share in self.shares if share.samples]


def next_share(request: Request, left: int) -> Share:
    """What it is behind, or as much of it as a step has left."""
    start = request.computed
    ids = tuple(request.tokens[start : start + left])
    return Share(request, start, ids, len(ids) == request.behind)
