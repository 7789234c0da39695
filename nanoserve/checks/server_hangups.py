"""Clients that hang up at every moment, and a queue that is full: Day 20.

The engine steps when it is told to, and the event loop is given turns, so no clock decides.
"""

import socket
from typing import Any

from nanoserve.checks.common import agree, holds
from nanoserve.checks.server_local import Local, Stepped, served
from nanoserve.engine.engine import Engine

MOST = 4  # that may wait, while one runs
TURNS = 25  # of the event loop, in which it must notice that somebody is gone
PATHS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": [5, 6, 7] * 7},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
}


def hang_up(there: socket.socket) -> None:
    """Close it, whatever has not been read."""
    there.close()


def ask(local: Local, path: str, stream: bool, most: int = 30) -> socket.socket:
    """A request that would go on for long."""
    body = PATHS[path] | {"stream": stream, "max_tokens": most, "ignore_eos": True}
    there = local.raw(path, body)
    local.turns(4)
    return there


def check_hangups(engine: Engine) -> None:
    """At every moment of a request, streamed or not; while it waits; and when the queue is full."""
    blocks = engine.num_free_blocks
    with served(engine, max_waiting=MOST) as local:
        steps = Stepped(engine)
        try:
            for path in PATHS:
                for stream in (True, False):
                    for moment in (0, 1, 4):
                        check_moment(local, steps, path, stream, moment)
            check_several(local, steps)
            check_waiting(local, engine, steps)
            check_full(local, engine, steps)
        finally:
            steps.free()
    agree("free blocks at the end", engine.num_free_blocks, blocks)
    engine.audit()


def check_moment(local: Local, steps: Stepped, path: str, stream: bool, moment: int) -> None:
    """A hang-up after so many steps: a step later all blocks are free."""
    what = f"{path}, {'a stream' if stream else 'whole'}, after {moment} steps"
    engine, blocks = steps.engine, steps.engine.num_free_blocks
    there = ask(local, path, stream)
    wait_for(what, local, lambda: len(engine.requests) == 1)
    steps.go(moment)
    agree(f"{what}: requests before the hang-up", len(engine.requests), 1)
    hang_up(there)
    gone(what, local)
    steps.go(2)  # the one that was under way, and the one that tells of it
    agree(f"{what}: free blocks a step later", engine.num_free_blocks, blocks)
    agree(f"{what}: requests", engine.has_unfinished(), False)


def check_several(local: Local, steps: Stepped) -> None:
    """A hang-up ends all answers to a request, also those that wait.

    Met in https://github.com/vllm-project/vllm/pull/14512, where the others ran on.
    """
    engine, commands = steps.engine, local.worker.thread.commands
    blocks = engine.num_free_blocks
    for stream in (True, False):
        what = f"three answers, {'a stream' if stream else 'whole'}"
        body = {"n": 3, "stream": stream, "max_tokens": 30, "ignore_eos": True}
        there = local.raw("/v1/completions", PATHS["/v1/completions"] | body)
        wait_for(what, local, lambda: len(local.worker.flying) == 3)
        steps.go(2)  # one may be under way before the others are heard of
        agree(f"{what}: requests in the engine", len(engine.requests), 3)
        hang_up(there)
        wait_for(f"{what}: three aborts", local, lambda: commands.qsize() == 3)
        steps.go(2)
        agree(f"{what}: requests", engine.has_unfinished(), False)
        agree(f"{what}: free blocks", engine.num_free_blocks, blocks)


def wait_for(what: str, local: Local, there: Any) -> None:
    """Give the event loop turns until the engine has heard of it."""
    for _ in range(400):
        if there():
            return
        local.turns(1)
    raise AssertionError(f"{what}: the engine has not heard of it, or it is over already")


def gone(what: str, local: Local) -> None:
    """The event loop has told the engine's thread that a client is gone."""
    for _ in range(TURNS):
        if not local.worker.thread.commands.empty():
            return
        local.turns(1)
    raise AssertionError(f"{what}: the client has hung up, and its request goes on")


def check_waiting(local: Local, engine: Engine, steps: Stepped) -> None:
    """One that waits for a row, and has hung up, is gone before it gets one."""
    first = ask(local, "/v1/completions", True)
    wait_for("the first", local, lambda: len(engine.requests) == 1)
    for stream in (True, False):
        second = ask(local, "/v1/completions", stream)
        wait_for("one that waits", local, lambda: not local.worker.thread.commands.empty())
        steps.go(1)  # and then the thread looks who has come
        agree("requests that wait", len(engine.scheduler.waiting), 1)
        hang_up(second)
        gone(f"one that waits, {'a stream' if stream else 'whole'}", local)
        steps.go(1)
        agree("waiting, a step later", len(engine.scheduler.waiting), 0)
        agree("running", len(engine.scheduler.running), 1)
    # Of two prompts the second is refused: the first is not written for nobody.
    body = {"prompt": [[5, 6], [10**9]], "max_tokens": 30}
    agree("status", local.http.post("/v1/completions", json=body).status_code, 400)
    local.turns(2)
    steps.go(1)
    agree("requests, a step after a refused call", len(engine.requests), 1)
    hang_up(first)
    gone("the first", local)
    steps.go(2)
    agree("requests", engine.has_unfinished(), False)


def check_full(local: Local, engine: Engine, steps: Stepped) -> None:
    """A full queue says so at once, while no step is done, and before it cuts a text."""
    there = [ask(local, "/v1/completions", True) for _ in range(1 + MOST)]
    wait_for("a full queue", local, lambda: len(local.worker.flying) == 1 + MOST)
    before, commands = steps.done, local.worker.thread.commands
    long = {"prompt": "far too long " * 400, "max_tokens": 3}
    for stream in (True, False):
        answer = local.http.post("/v1/completions", json=long | {"stream": stream})
        agree("status of one too many", answer.status_code, 429)
        wait = answer.headers.get("Retry-After", "none")
        holds("Retry-After must be whole seconds from 1 on", wait.isdigit() and int(wait) > 0, wait)
        agree("its kind", answer.json()["error"]["type"], "rate_limit_error")
    agree("steps meanwhile", steps.done, before)
    queued = commands.qsize()
    for each in there:
        hang_up(each)
    wait_for("hang-ups", local, lambda: commands.qsize() == queued + len(there))
    steps.go(2)
    agree("requests after all have hung up", engine.has_unfinished(), False)
