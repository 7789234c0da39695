"""What a server asks of an engine beside its steps.

Built in the book: day19. Edit there, then run book/tangle.py.
"""

from collections.abc import Sequence

from nanoserve.engine.engine import Engine
from nanoserve.engine.request import Request
from nanoserve.engine.scheduler import check_room
from nanoserve.sampling import SamplingParams


def check_request(engine: Engine, prompt_ids: Sequence[int], params: SamplingParams) -> None:
    """ValueError where add_request would raise it, but for a used id.

    It reads only what never changes, so any thread may call it, also
    while a step runs.
    """
    settled = engine.settled(prompt_ids, params)
    request = Request("", tuple(map(int, prompt_ids)), settled)
    check_room(engine.scheduler.blocks, request)


def drop_all(engine: Engine) -> None:
    """Let go of every request, wherever a failed step has left it.

    AssertionError where the books do not agree even then.
    """
    scheduler = engine.scheduler
    for request in [*scheduler.running, *scheduler.waiting]:
        scheduler.finish(request, "abort")
    for book in (engine.requests, engine.texts, engine.aborted):
        book.clear()
    engine.audit()
