"""What must be true between any two steps.

Built in the book: day16. Edit there, then run book/tangle.py.
"""

from nanoserve.engine.scheduler import Scheduler


def audit(scheduler: Scheduler) -> None:
    """AssertionError unless blocks, tables, queues and counts agree."""
    running, waiting = scheduler.running, scheduler.waiting
    scheduler.blocks.audit(request.table for request in running)
    if len(running) > scheduler.max_num_seqs:
        raise AssertionError(f"{len(running)} requests run")
    queued = [*running, *waiting]
    if len({*queued}) < len(queued):
        raise AssertionError("a request is queued twice")
    for request in queued:
        name, room = request.request_id, len(request.table)
        known, computed = len(request.tokens), request.computed
        if request.finish_reason:
            raise AssertionError(f"{name} has ended and is queued")
        if not 0 <= computed < known:
            raise AssertionError(f"{name}: {computed} of {known} computed")
        if computed > room * scheduler.blocks.block_size:
            what = f"{computed} tokens in {room} blocks"
            raise AssertionError(f"{name}: {what}")
    for request in waiting:
        if request.table:
            raise AssertionError(f"{request.request_id} waits with blocks")
