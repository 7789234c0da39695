"""What comes over a connection before the app sees it: heads without end, other protocols."""

import json
import socket
import threading
import time

import pytest
import uvicorn

from nanoserve.checks.server_local import SECONDS
from nanoserve.server.heads import MAX_HEAD, Heads


@pytest.fixture(scope="module")
def port():
    """Of a server that says how long the body was, behind what limits a head."""

    async def app(scope, receive, send):
        message, size = {"more_body": True}, 0
        while message["more_body"]:
            message = await receive()
            size += len(message["body"])
        told = [(b"content-length", b"0"), (b"read", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": told})
        await send({"type": "http.response.body"})

    quiet = {"lifespan": "off", "port": 0, "log_level": "critical"}
    server = uvicorn.Server(uvicorn.Config(app, http=Heads, **quiet))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def said(port: int, *requests: bytes) -> bytes:
    """All that is answered on one connection; what is cut off by the other side's end is not."""
    data = b""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as there:
        try:
            for request in requests:
                there.sendall(request)
                data += there.recv(2**16)
        except ConnectionError:  # it hung up on what was still to be sent
            pass
    return data


def statuses(port: int, *requests: bytes) -> list[bytes]:
    """Of the answers on one connection."""
    lines = said(port, *requests).splitlines()
    return [line.split(b" ")[1] for line in lines if line.startswith(b"HTTP/1.1 ")]


HEAD = b"POST / HTTP/1.1\r\nHost: here\r\n"


def test_a_long_head_and_a_long_body_are_read(port):
    long = HEAD + b"X: " + b"x" * (MAX_HEAD - 100) + b"\r\n\r\n"
    body = HEAD + b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000
    assert statuses(port, long, body, long, body, long) == [b"200"] * 5


@pytest.mark.parametrize("line", [b"x" * 1000, b"X: y\r\n" * 100])
def test_a_head_without_end_is_hung_up_on(port, line):
    """It took a server 14 seconds to read 50 MB of it, and nobody else was answered meanwhile."""
    start = time.process_time()  # the server is in this process
    assert statuses(port, HEAD + b"X: " + line * 50_000) in ([], [b"400"])
    assert time.process_time() - start < 5
    assert statuses(port, HEAD + b"\r\n") == [b"200"]


# As Java's own client asks first: https://github.com/langchain4j/langchain4j/issues/3682
OFFER = (
    HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
)
LONG = OFFER + b"Content-Length: 11\r\n\r\n"
PIECES = OFFER + b"Transfer-Encoding: chunked\r\n\r\n"
WEBSOCKET = LONG.replace(b"h2c", b"websocket")


@pytest.mark.parametrize(
    "requests",
    [
        [LONG + b"hello world"],
        [LONG, b"hello world"],
        [LONG[:70], LONG[70:] + b"hello", b" world"],
        [bytes([byte]) for byte in LONG + b"hello world"],
        [PIECES + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"],
        [PIECES, b"5\r\nhello\r\n6\r\n wor", b"ld\r\n0\r\n\r\n"],
        [WEBSOCKET + b"hello world"],
    ],
)
def test_a_body_is_read_whatever_else_is_offered(port, requests):
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as there:
        there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in requests:
            there.sendall(piece)
            time.sleep(0.001)
        data = there.recv(2**16)
        assert data.startswith(b"HTTP/1.1 200 ") and b"read: 11\r\n" in data
        there.sendall(HEAD + b"Content-Length: 1\r\n\r\nx")  # and the connection goes on
        assert b"read: 1\r\n" in there.recv(2**16)


def test_offers_one_after_another(port):
    """One piece of data that holds a thousand of them is no recursion a thousand deep."""
    get = OFFER.replace(b"POST", b"GET") + b"\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as there:
        there.sendall(get * 1500)
        data = b""
        while data.count(b"HTTP/1.1 200 ") < 1500:
            more = there.recv(2**16)
            assert more, data[-200:]
            data += more


@pytest.mark.parametrize(
    "data", [b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\r\n"]
)
def test_what_is_not_ours_is_refused_in_the_shape_of_all_errors(port, data):
    head, _, body = said(port, data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and b"application/json" in head
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
