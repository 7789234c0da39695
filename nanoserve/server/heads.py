"""What stands between a connection and the app: heads without end, other protocols offered."""

import json
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nanoserve.server.errors import shape

MAX_HEAD = 2**16  # bytes of a request before its body, beside the piece of data that it begins in


class Parser(httptools.HttpRequestParser):
    """httptools', which stays with HTTP/1.1 whatever a client offers.

    Java's own client offers HTTP/2 (Upgrade: h2c) at the head of a connection's first request, and
    still sends its body as HTTP/1.1. httptools takes all that follows such a head for HTTP/2, and
    the app would get no body. A server need not take the offer (RFC 9110, 7.8).
    """

    def __init__(self, heads: "Heads"):
        super().__init__(heads)
        self.heads = heads

    def feed_data(self, data: bytes) -> None:
        while data:
            try:
                return super().feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = self.heads.declined() + data[offer.args[0] :]


class Heads(HttpToolsProtocol):
    """uvicorn's, which hangs up on a head that does not end, and reads bodies after an offer.

    httptools joins a header to what it has of it with every piece that comes: in 50 MB that is
    14 seconds, in which the event loop does nothing for anybody else.
    """

    # Whether a head is being read, its bytes since the piece that it began in, and of this piece.
    open, size, piece = False, 0, 0

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        self.parser = Parser(self)
        # As uvicorn has it: what comes after a request that closes is no error of that request.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def on_message_begin(self) -> None:
        self.open, self.size = True, -self.piece
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.open = False
        if not self.parser.should_upgrade():  # else it comes again, without the offer
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def declined(self) -> bytes:
        """The head that was read, without its offer. HttpParserError for CONNECT, which is none."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            raise httptools.HttpParserError("this is no proxy")
        lines = [b"%s %s HTTP/%s" % (method, self.url, version.encode())]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def data_received(self, data: bytes) -> None:
        self.piece = len(data)
        super().data_received(data)
        self.size += self.piece
        if self.open and self.size > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response(f"The headers are over {MAX_HEAD} bytes.")

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is refused in the shape of all errors, and the connection ends."""
        body = json.dumps(shape(400, msg, None, None))
        head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self.transport.write((head + body).encode())
        self.transport.close()
