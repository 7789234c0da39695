"""What a stream has said, put together as its reader would: Day 20."""

from typing import Any

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.server_local import MODEL


def near(what: str, mine: list[float], wanted: list[float]) -> None:
    """As many logprobs, each within 1e-4: company changes their last digits."""
    agree(f"{what}: how many", len(mine), len(wanted))
    off = max(abs(a - b) for a, b in zip(mine, wanted, strict=True))
    holds(f"{what}: {mine} must be {wanted}", off < 1e-4, f"off by {off}")


class Heard:
    """What a stream has said, put together as its reader would."""

    def __init__(self, choices: int):
        self.texts, self.reasons = [""] * choices, [None] * choices
        self.roles, self.usage, self.logprobs = [""] * choices, None, [[] for _ in range(choices)]

    def add(self, chunk: Any) -> None:
        holds("usage must be in the last chunk", self.usage is None)
        self.usage = chunk.usage
        for choice in chunk.choices:
            i, delta = choice.index, getattr(choice, "delta", None)
            holds(f"choice {i} must end once, and last", self.reasons[i] is None)
            new = choice.text if delta is None else delta.content
            self.texts[i] += new or ""
            self.roles[i] += (delta and delta.role) or ""
            self.reasons[i] = choice.finish_reason
            if choice.logprobs:
                each = choice.logprobs
                self.logprobs[i] += each.content if delta is not None else each.token_logprobs


def whole(call: Any, **said: Any) -> Any:
    """An answer that is no stream, with a choice at least."""
    answer = attempt("a whole answer", lambda: call.create(model=MODEL, **said))
    holds("an answer that is no stream must be an object", hasattr(answer, "choices"))
    holds("it must have a choice", len(answer.choices) > 0)
    return answer


def streamed(call: Any, choices: int = 1, **said: Any) -> Heard:
    """A stream, heard to its end."""
    heard = Heard(choices)
    options = {"include_usage": True}

    def listen() -> None:
        for chunk in call.create(model=MODEL, stream=True, stream_options=options, **said):
            heard.add(chunk)

    attempt("a stream", listen)
    return heard
