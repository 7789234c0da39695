"""What is refused over HTTP: with which status, by which field's name, in which shape. Day 20."""

import json
import threading
from typing import Any

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.server_local import MODEL, Local, served
from nanoserve.engine.engine import Engine

TALK = [{"role": "user", "content": "x"}]
TEXT, CHAT = "/v1/completions", "/v1/chat/completions"


def part(**said: Any) -> dict[str, Any]:
    """A conversation whose one message has this for content."""
    return {"messages": [{"role": "user", "content": [said]}]}


OFF: dict[str, Any] = {  # not built: what would ask for it, refused by its name
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
    "functions": [{"name": "f"}],
    "response_format": {"type": "json_object"},
    "logit_bias": {"5": 1},
    "best_of": 2,
    "echo": True,
    "suffix": "end",
    "modalities": ["audio"],
    "prediction": {"type": "content", "content": "x"},
    "reasoning_effort": "high",
    "store": True,
    "use_beam_search": True,
    "prompt_logprobs": 1,
    "skip_special_tokens": False,
    "a_field_of_nobody": 1,
}
WRONG: list[tuple[str, dict[str, Any], str | None]] = [  # address, body, the field that is named
    (TEXT, {}, "prompt"),
    (TEXT, {"prompt": 5}, "prompt"),
    (TEXT, {"prompt": []}, "prompt"),
    (TEXT, {"prompt": [[]]}, "prompt"),
    (TEXT, {"prompt": [10**9]}, "prompt"),
    (TEXT, {"prompt": ["x"] * 65}, "prompt"),
    (TEXT, {"prompt": ["x"] * 40, "n": 2}, "n"),
    (TEXT, {"prompt": [1] * 4000}, "prompt"),
    (TEXT, {"prompt": "\ud800"}, "prompt"),
    (TEXT, {"prompt": "x", "max_tokens": 0}, "max_tokens"),
    (TEXT, {"prompt": "x", "max_tokens": 1.5}, "max_tokens"),
    (TEXT, {"prompt": "x", "max_tokens": 10**6}, "prompt"),
    (TEXT, {"prompt": "x", "n": 0}, "n"),
    (TEXT, {"prompt": "x", "temperature": -1}, "temperature"),
    (TEXT, {"prompt": "x", "temperature": "1"}, "temperature"),
    (TEXT, {"prompt": "x", "top_p": 0}, "top_p"),
    (TEXT, {"prompt": "x", "logprobs": 21}, "logprobs"),
    (TEXT, {"prompt": "x", "logprobs": True}, "logprobs"),
    (TEXT, {"prompt": "x", "stop": ""}, "stop"),
    (TEXT, {"prompt": "x", "stop": ["a"] * 17}, "stop"),
    (TEXT, {"prompt": "x", "seed": 2**63}, "seed"),
    (TEXT, {"prompt": "x", "stream": "yes"}, "stream"),
    (TEXT, {"prompt": "x", "stream_options": {"include_usage": True}}, "stream_options"),
    (TEXT, {"prompt": "x", "messages": TALK}, "messages"),
    (CHAT, {}, "messages"),
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": "x"}, "messages"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages.0.content"),
    (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    (CHAT, {"messages": [{**TALK[0], "tool_calls": [1]}]}, "messages.0.tool_calls"),
    (CHAT, part(type="image_url", image_url={"url": "x"}), "messages.0.content.0.type"),
    (CHAT, part(type="text"), "messages.0.content.0.text"),
    (CHAT, {"messages": [{"role": "user", "content": "long " * 900}]}, "messages"),
    (CHAT, {"messages": TALK, "max_tokens": 10**6}, "messages"),
    (CHAT, {"messages": TALK, "top_logprobs": 2}, "top_logprobs"),
    (CHAT, {"messages": TALK, "max_tokens": 1, "max_completion_tokens": 2}, None),
]


def error_of(what: str, answer: Any, status: int) -> dict[str, Any]:
    """The object in OpenAI's shape, whose four fields are all there."""
    agree(f"status of {what}", answer.status_code, status)
    kind = answer.headers.get("content-type", "")
    holds(f"{what}: the answer must be JSON", kind.startswith("application/json"), kind)
    error = answer.json().get("error", {})
    agree(f"{what}: fields of the error", set(error), {"message", "type", "param", "code"})
    holds(f"{what}: the message must say something", len(error["message"] or "") > 10)
    return error


def check_refusals(engine: Engine) -> None:
    """Fields, addresses, bodies and keys; and nothing of it reaches the engine."""
    with served(engine, api_key="a key", max_body=100_000) as local:
        check_key(local)
        local.http.headers["Authorization"] = "Bearer a key"
        for i, (path, body, field) in enumerate(WRONG):
            # Before the 200, also of a stream; but options of one are refused without one.
            stream = "stream_options" not in body and i % 2 == 0
            check_wrong(local, path, {"stream": stream} | body, field)
        for name, value in OFF.items():
            for path, body in ((TEXT, {"prompt": "x"}), (CHAT, {"messages": TALK})):
                check_wrong(local, path, {**body, name: value, "max_tokens": 1}, name)
        check_bodies(local)
        check_addresses(local)
        agree("requests that came to the engine", local.worker.stats().steps, 0)
        check_accepted(local)
        check_thread(local)
        check_closing(local)
    holds("with the server its engine's thread must end", not local.worker.thread.is_alive())


def check_closing(local: Local) -> None:
    """A server that is to end says so before it cuts a text: no fault of theirs, none of ours."""
    local.worker.stopping = True
    long = {"prompt": "far too long " * 400}
    error = error_of("a closing server", local.http.post(TEXT, json=long), 503)
    agree("its type", error["type"], "server_error")
    agree("its health", local.http.get("/health").status_code, 503)


def check_thread(local: Local) -> None:
    """A text is cut beside the event loop: a long one holds up nobody else."""
    tokenizer, there = local.engine.tokenizer, []
    plain = tokenizer.encode

    def encode(text: str) -> list[int]:
        there.append(threading.current_thread())
        return plain(text)

    tokenizer.encode = encode
    local.http.post(TEXT, json={"prompt": "x", "max_tokens": 1})
    del tokenizer.encode
    apart = bool(there) and local.thread not in there
    holds("a text must be cut in another thread than the event loop's", apart, f"{there}")


def check_wrong(local: Local, path: str, body: dict[str, Any], field: str | None) -> None:
    """Refused, by the name of the field."""
    kind = {"Content-Type": "application/json"}
    what, data = f"{path} of {body!r:.80}", json.dumps(body)
    answer = attempt(what, lambda: local.http.post(path, content=data, headers=kind))
    error = error_of(what, answer, 400)
    agree(f"{what}: type", error["type"], "invalid_request_error")
    if field:
        agree(f"{what}: param", error["param"], field)
        holds(f"{what}: no trace of Python", "Traceback" not in error["message"])


def check_key(local: Local) -> None:
    """No key, a wrong one, one that begins right; what is no /v1 needs none."""
    for key in (None, "Bearer", "Bearer a ke", "Bearer a keys", "a key", "bearer é"):
        headers = {} if key is None else {"Authorization": key.encode("latin-1")}
        error = error_of(f"key {key}", local.http.get("/v1/models", headers=headers), 401)
        agree(f"key {key}: code", error["code"], "invalid_api_key")
    for path in ("/", "/health"):
        agree(f"status of {path}", local.http.get(path).status_code, 200)


def check_addresses(local: Local) -> None:
    """A slash at the end redirects nobody, to another host or without the key; HEAD is a GET."""
    for path in (TEXT + "/", CHAT + "/"):  # an empty body is refused where it was sent to
        error_of(f"{path} with nothing in it", local.http.post(path, json={}), 400)
    for path in ("/", "/health", "/v1/models"):
        agree(f"status of HEAD {path}", local.http.head(path).status_code, 200)


def check_bodies(local: Local) -> None:
    """Addresses and methods that are not there, what is no JSON, and too much of it."""
    kind = {"Content-Type": "application/json"}
    error_of("an unknown address", local.http.post("/v1/nothing", json={}), 404)
    error_of("another model", local.http.post(TEXT, json={"prompt": "x", "model": "y"}), 404)
    error_of("a model that is not here", local.http.get("/v1/models/y"), 404)
    error_of("a wrong method", local.http.get(CHAT), 405)
    for body in (b"", b"{", b"[1]", b"null", b"\xff", b"[" * 40_000, b'{"prompt": NaN}'):
        error_of(f"body {body[:20]!r}", local.http.post(TEXT, content=body, headers=kind), 400)
    error_of("no type", local.http.post(TEXT, content=b'{"prompt": "x"}'), 400)
    big = b'{"prompt": "' + b"x" * 100_000 + b'"}'
    error_of("a large body", local.http.post(TEXT, content=big, headers=kind), 413)
    pieces = iter([big[:60_000], big[60_000:]])  # no length is stated
    error_of("a large body in pieces", local.http.post(TEXT, content=pieces, headers=kind), 413)


def check_accepted(local: Local) -> None:
    """null, and what says that something is not wanted, is no reason to refuse."""
    off = {"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "store": False}
    off |= {"logit_bias": {}, "temperature": None, "stop": None, "user": "somebody", "n": 1}
    off |= {"model": MODEL, "max_tokens": 1, "stream_options": None, "logprobs": None}
    for path, body in ((TEXT, {"prompt": "x", "best_of": 1}), (CHAT, {"messages": TALK})):
        answer = local.http.post(path, json=body | off)
        agree(f"status of {path} with all that is off", answer.status_code, 200)
