"""Clients unlike most: slow, not reading; and what the schema says."""

import asyncio
import json
import socket
import time

import pytest

from nanoserve.checks.engine_texts import checkpoint
from nanoserve.checks.server_local import SECONDS, served
from nanoserve.engine.engine import Engine
from nanoserve.server.app import create_app

BODY = {"prompt": "x", "max_tokens": 3, "temperature": 0}


@pytest.fixture(scope="module")
def engine():
    with checkpoint() as path:
        yield Engine(path, num_blocks=64)


@pytest.fixture
def local(engine):
    with served(engine) as server:
        yield server
    assert engine.num_free_blocks == 64


def read(there: socket.socket) -> bytes:
    """What comes until the other side hangs up."""
    data = b""
    while more := there.recv(2**16):
        data += more
    return data


def test_a_request_in_pieces_of_one_byte(local):
    data = json.dumps(BODY).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", local.port), timeout=SECONDS) as there:
        there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head.encode() + data:
            there.send(bytes([byte]))
        answer = json.loads(read(there).partition(b"\r\n\r\n")[2])
    whole = local.http.post("/v1/completions", json=BODY).json()
    assert answer["choices"] == whole["choices"]


def test_who_asks_and_never_reads_holds_no_row(engine):
    """The engine goes on without them; what they have not read is one output, and not a queue."""
    app, taken = create_app(engine, "a-model"), []

    async def main():
        body = json.dumps(BODY | {"stream": True, "max_tokens": 60, "ignore_eos": True}).encode()
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers}
        scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http"}
        asked, stuck = [{"type": "http.request", "body": body}], asyncio.Event()

        async def receive():
            return asked.pop() if asked else await asyncio.Event().wait()

        async def send(message):
            taken.append(message)
            if len(taken) == 2:  # the head, and a first piece
                stuck.set()
                await asyncio.Event().wait()

        async with app.router.lifespan_context(app):
            task = asyncio.ensure_future(app(scope, receive, send))
            await stuck.wait()
            late = time.monotonic() + SECONDS
            while engine.has_unfinished():
                assert time.monotonic() < late
                await asyncio.sleep(0.005)
            assert engine.num_free_blocks == 64 and not task.done()
            task.cancel()

    asyncio.run(main())
    assert len(taken) == 2


def test_two_hundred_at_once_are_answered_or_sent_away(local):
    body = BODY | {"max_tokens": 8, "ignore_eos": True, "stream": True}
    there = [local.raw("/v1/completions", body) for _ in range(200)]
    status = []
    for one in there:
        data = b""
        while b"[DONE]" not in data and b'"error"' not in data:
            more = one.recv(2**16)
            assert more, data
            data += more
        status.append(int(data.split(b" ")[1]))
        assert status[-1] == 200 or b"retry-after: " in data.lower()
        one.close()
    assert set(status) <= {200, 429} and status.count(200) >= 80
    assert local.http.get("/health").json() == {"healthy": True}


def test_the_schema_says_what_is_answered(local):
    paths = local.http.get("/openapi.json").json()["paths"]
    assert len(paths) == 7
    for path, operations in paths.items():
        for operation in operations.values():
            told = operation["responses"]
            assert set(told) == {"200", "default"}, path
            error = told["default"]["content"]["application/json"]["schema"]
            assert error["properties"]["error"]["required"] == ["message", "type", "param", "code"]
    for path in ("/", "/health", "/metrics", "/v1/models"):
        kind = local.http.get(path).headers["Content-Type"].partition(";")[0]
        assert kind in paths[path]["get"]["responses"]["200"]["content"]


@pytest.mark.parametrize(
    ("path", "wrong", "near"),
    [
        ("completions", "max_completion_tokens", None),
        ("completions", "top_logprobs", "logprobs"),
        ("chat/completions", "max_completion_token", "max_completion_tokens"),
        ("chat/completions", "promt", None),
        ("completions", "promt", "prompt"),
    ],
)
def test_a_field_that_is_meant_is_one_of_that_address(path, wrong, near, local):
    said = BODY if path == "completions" else {"messages": [{"role": "user", "content": "x"}]}
    error = local.http.post(f"/v1/{path}", json=said | {wrong: 1}).json()["error"]
    assert error["param"] == wrong and error["message"].startswith(f"{wrong}: there is no such")
    assert error["message"].partition(", is it ")[2] == (f"{near}?" if near else "")
