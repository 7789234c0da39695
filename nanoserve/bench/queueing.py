"""A queue on paper: who comes when, and is answered when?

Built in the book: day21. Edit there, then run book/tangle.py.
"""

from collections import deque
from collections.abc import Iterable
from heapq import heapreplace


class Server:
    """Answers `slots` requests at once, each for `service` seconds.

    The others wait in order, `bound` of them at most. From the first to
    the second time of `stall`, all work rests.
    """

    def __init__(
        self,
        service: float,
        slots: int = 1,
        bound: int | None = None,
        stall: tuple[float, float] = (0.0, 0.0),
    ):
        self.service, self.bound, self.stall = service, bound, stall
        self.free = [0.0] * slots  # when each slot is: a heap
        self.starts = deque()  # of those that wait, in order

    def ask(self, at: float) -> float | None:
        """When a request of this time has its answer. None: refused.

        Call it in the order of time.
        """
        while self.starts and self.starts[0] <= at:
            self.starts.popleft()
        start, waits = max(at, self.free[0]), len(self.starts)
        if start > at and self.bound is not None and waits >= self.bound:
            return None
        since, until = self.stall
        end = start + self.service
        if start < until and end > since:
            end += until - max(since, start)
        heapreplace(self.free, end)
        self.starts.append(start)
        return end


Times = list[tuple[float, float | None]]  # asked, answered


def open_loop(server: Server, due: Iterable[float]) -> Times:
    """Requests come when they are due, whatever becomes of them."""
    return [(at, server.ask(at)) for at in due]


def closed_loop(server: Server, clients: int, until: float) -> Times:
    """Each client asks again as soon as it has its answer."""
    ready, asked = [0.0] * clients, []  # when each client is: a heap
    while ready[0] < until:
        at = ready[0]
        end = server.ask(at)
        asked.append((at, end))
        # Who is refused tries again after the time of an answer.
        heapreplace(ready, at + server.service if end is None else end)
    return asked
