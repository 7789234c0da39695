"""What a stream is made of, without a network: chunks, frames, and who has hung up. Day 20."""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.server_frames import (
    FIRST,
    PROMPT,
    SECOND,
    asked,
    check_frames,
    check_watch,
)
from nanoserve.checks.server_local import apart
from nanoserve.sampling import Logprob
from nanoserve.server.wire import Chat, Completion
from nanoserve.server.writer import Writer


def ladder(form: type, outputs: list, **said: Any) -> list[dict]:
    """All chunks of answers that come in turns."""
    writer = Writer("m", [form(None, 1) for _ in outputs], [PROMPT] * len(outputs), asked(**said))
    chunks = told("start", writer.start())
    for turn in range(max(map(len, outputs))):
        for i, each in enumerate(outputs):
            if turn < len(each):
                chunks += told("push", writer.push(i, each[turn]))
    return chunks + told("end", writer.end())


def told(name: str, chunks: Iterable[dict] | None) -> list[dict]:
    """The chunks that a method of the Writer yields, maybe none."""
    holds(f"Writer.{name} must yield its chunks", isinstance(chunks, Iterable), f"it gave {chunks}")
    return attempt(f"Writer.{name}", list, chunks)


def rungs(chunks: list[dict]) -> list[tuple]:
    """Of each chunk: the index, what is new, and the reason; what is not null besides."""
    told = []
    for chunk in chunks:
        for choice in chunk["choices"]:
            new = choice.get("delta", choice.get("text"))
            ids = [choice["token_ids"]] if "token_ids" in choice else []
            told.append((choice["index"], new, choice["finish_reason"], *ids))
        if chunk.get("usage"):
            told.append((chunk["choices"], chunk["usage"]["completion_tokens"]))
    return told


def check_writer() -> None:
    """The ladder in both forms, the heads, what is asked for besides, frames, hang-ups."""
    say = {"role": "assistant", "content": ""}
    text = [(0, {"content": piece}, None) for piece in ("A", " bc", "d")]
    got = attempt("Writer", ladder, Chat, [FIRST])
    agree("chunks of a chat", rungs(got), [(0, say, None), *text, (0, {}, "stop")])
    wanted = [(0, "A", None), (0, " bc", None), (0, "d", None), (0, "", "stop")]
    agree("chunks of a completion", rungs(attempt("W", ladder, Completion, [FIRST])), wanted)
    chunks = ladder(Chat, [FIRST, SECOND], n=2, usage=True)
    two, read = rungs(chunks), chunks[-1]["usage"]["prompt_tokens"]
    agree("a prompt's tokens, of which two answers are asked", read, len(PROMPT))
    for i, reason in enumerate(("stop", "length")):
        own = [rung for rung in two if rung[0] == i]
        agree(f"the first chunk of choice {i}", own[:1], [(i, say, None)])
        agree(f"the last chunk of choice {i}", own[-1:], [(i, {}, reason)])
    spoken = ["".join(r[1]["content"] for r in two[:-1] if r[0] == i and r[1]) for i in (0, 1)]
    agree("the texts of two choices", spoken, ["A bcd", "xy"])
    agree("usage, the last chunk", two[-1], ([], 7))
    check_heads()
    check_ids()
    check_frames()
    apart(check_watch())


def check_heads() -> None:
    """One id, one time and one model for all chunks; usage null but in its own."""
    for form, kind, whole in (
        (Chat, "chat.completion.chunk", "chat.completion"),
        (Completion, "text_completion", "text_completion"),
    ):
        chunks = ladder(form, [FIRST], usage=True)
        heads = {(c["id"], c["object"], c["created"], c["model"]) for c in chunks}
        agree(f"heads of a stream of {kind}", len(heads), 1)
        (name, said, created, model) = heads.pop()
        agree("object and model", (said, model), (kind, "m"))
        now = type(created) is int and abs(created - time.time()) < 3600
        holds("created must be whole seconds since 1970", now, f"it is {created!r}")
        nulls = [c.get("usage", "none") is None for c in chunks]
        agree("chunks whose usage is null", nulls, [True] * (len(chunks) - 1) + [False])
        agree("null for what is not there", chunks[1]["choices"][0]["logprobs"], None)
        other = ladder(form, [FIRST])
        holds("another answer must have another id", other[0]["id"] != name)
        holds("usage only where asked for", not any("usage" in c for c in other))
        writer = Writer("m", [form(None, None)] * 2, [PROMPT] * 2, asked(False, n=2))
        writer.told = [FIRST[-1], SECOND[-1]]
        answer = attempt("Writer.whole", writer.whole)
        agree("object of a whole answer", answer["object"], whole)
        agree("indices", [c["index"] for c in answer["choices"]], [0, 1])
        agree("reasons", [c["finish_reason"] for c in answer["choices"]], ["stop", "length"])
        read, wrote = len(PROMPT), 7  # one prompt for both
        usage = answer["usage"]
        mine = usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]
        agree("usage of a whole answer", mine, (read, wrote, read + wrote))
        agree("cached tokens", usage["prompt_tokens_details"]["cached_tokens"], 2)


def check_ids() -> None:
    """return_token_ids: each id once, with the piece that came with it, and the prompt's."""
    chunks = ladder(Chat, [FIRST], ids=True)
    agree("ids in the chunks", [r[3] for r in rungs(chunks) if r[3:]], [[0], [1], [2, 3], [4]])
    agree("ids of a chat's prompt", chunks[0].get("prompt_token_ids"), PROMPT)
    chunks = ladder(Completion, [FIRST], ids=True)
    agree("ids of a prompt", chunks[0]["choices"][0].get("prompt_token_ids"), PROMPT)
    same = replace(FIRST[0], logprobs=[{0: Logprob(-1.0, 1)}])
    chunks = ladder(Completion, [[same, same]], ids=True)
    agree("chunks of ids, where a second output is the first", len(chunks), 2)
