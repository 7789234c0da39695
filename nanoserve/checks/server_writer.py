"""What a stream is made of, without a network: chunks, frames, and who has hung up. Day 20."""

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.server_local import apart
from nanoserve.engine.request import RequestOutput
from nanoserve.server.answer import EngineError
from nanoserve.server.stream import DONE, frame, frames, while_there
from nanoserve.server.wire import Chat, Completion
from nanoserve.server.writer import Writer

PROMPT = [7, 8, 9]


def output(text: str, ids: int, reason: str | None = None) -> RequestOutput:
    """An answer with so many ids."""
    return RequestOutput("r", PROMPT, list(range(ids)), text, reason is not None, reason, None, 2)


# A token at a time; one that is held back; two at once, for a slow reader; a tail at the end.
FIRST = [output("A", 1), output("A", 2), output("A bc", 4), output("A bcd", 5, "stop")]
SECOND = [output("x", 1), output("xy", 2, "length")]


def asked(stream: bool = True, usage: bool = False, ids: bool = False, n: int = 1) -> Any:
    """What a request said of the form of its answer."""
    options = SimpleNamespace(include_usage=True) if usage else None
    return SimpleNamespace(stream=stream, stream_options=options, return_token_ids=ids, n=n)


def ladder(form: type, outputs: list, **said: Any) -> list[dict]:
    """All chunks of answers that come in turns."""
    writer = Writer(
        "m", [form(None, None) for _ in outputs], [PROMPT] * len(outputs), asked(**said)
    )
    chunks = list(writer.start())
    for turn in range(max(map(len, outputs))):
        for i, each in enumerate(outputs):
            if turn < len(each):
                chunks += writer.push(i, each[turn])
    return [*chunks, *writer.end()]


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
    two = rungs(ladder(Chat, [FIRST, SECOND], n=2, usage=True))
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
        holds("created must be whole seconds", type(created) is int)
        agree("usage in the chunks", [bool(c["usage"]) for c in chunks[-3:]], [False, False, True])
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


def check_frames() -> None:
    """An event is a line and an empty one, whatever is in it; and the last one always comes."""
    for text in (
        "plain",
        "two\nlines\r\n",
        "\u2028, \u2029 and \x85",
        "世界 🙂",
        "data: [DONE]\n\n",
    ):
        got = attempt("frame", frame, {"text": text})
        lines = got.decode().splitlines(keepends=True)
        agree(f"lines of the frame of {text!r}", [line[-1:] for line in lines], ["\n", "\n"])
        agree("the empty line", lines[1], "\n")
        holds("a frame must begin with 'data: '", lines[0].startswith("data: "), lines[0])
        agree("what is in it", json.loads(lines[0][6:]), {"text": text})

    async def said(*outputs: Any) -> AsyncIterator[RequestOutput]:
        for each in outputs:
            if isinstance(each, Exception):
                raise each
            yield each

    async def all_of(*outputs: Any) -> list[bytes]:
        writer = Writer("m", [Chat(None, None)], [PROMPT], asked(usage=True))
        return [part async for part in frames(writer, [said(*outputs)])]

    got = b"".join(attempt("frames", apart, all_of(*FIRST)))
    events = got.split(b"\n\n")
    agree("events of a stream", len(events), 5 + 1 + 1 + 1)
    agree("the last event, and nothing behind it", events[-2:], [DONE.strip(), b""])
    got = b"".join(
        attempt("a stream that fails", apart, all_of(FIRST[0], EngineError("out of it")))
    )
    *_, error, last, _ = got.split(b"\n\n")
    agree("the last event of a stream that failed", last, DONE.strip())
    told = json.loads(error.removeprefix(b"data: ")).get("error", {})
    agree("what a stream that fails says", told.get("message"), "out of it")


async def check_watch() -> None:
    """Work that ends, that fails, and that nobody waits for any more."""
    hung_up, ended = asyncio.Event(), []

    async def receive() -> dict:
        if not ended:
            ended.append("a body comes first")
            return {"type": "http.request", "body": b""}
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def work(seconds: float, error: Exception | None = None) -> None:
        try:
            await asyncio.sleep(seconds)
            if error:
                raise error
            ended.append("done")
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.append("cancelled")
            raise

    agree("work that is done", await while_there(receive, work(0.01)), True)
    try:
        await while_there(receive, work(0, KeyError("x")))
        raise AssertionError("an error of the work must be raised")
    except KeyError:
        pass
    asyncio.get_running_loop().call_later(0.01, hung_up.set)
    agree("work that nobody waits for", await while_there(receive, work(3)), False)
    agree("what has ended when it returns", ended[1:], ["done", "cancelled"])
    holds("nothing may be left running", len(asyncio.all_tasks()) <= 2)  # this, and wait_for's
