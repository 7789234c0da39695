"""What every request passes first: is the key right, is the body small enough?"""

import secrets

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanoserve.server.errors import APIError, response

MAX_BODY = 2**20  # bytes: more text than most contexts hold


def check_api_key(key: str | None) -> None:
    """ValueError for what nobody can send. An empty key is a variable that was not set."""
    if key is not None and (not key or key != key.strip() or not key.isprintable()):
        why = "is empty" if not key else "has blanks around it, or what is no letter in it"
        raise ValueError(f"the API key {why}: give another, or none to let everybody in")


class Gate:
    """An ASGI app around another one.

    With an `api_key`, addresses under /v1 answer whoever sends it, and nobody else. A body over
    `max_body` bytes is refused by its stated length, or when so much of it has come. HEAD is GET
    without the body, which the web server leaves out. A slash at the end of an address is as good
    as none: a redirect would name the address that a proxy hides, and some clients follow none.
    """

    def __init__(self, app: ASGIApp, api_key: str | None = None, max_body: int = MAX_BODY):
        self.app, self.max_body = app, max_body
        self.wanted = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if error := self.refused(scope["path"], dict(scope["headers"])):
            return await response(error)(scope, receive, send)
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        scope = {**scope, "path": scope["path"].rstrip("/") or "/"}
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.max_body:
                raise HTTPException(413, self.too_large())
            return message

        await self.app(scope, counted, send)

    def refused(self, path: str, headers: dict[bytes, bytes]) -> APIError | None:
        """Why a request goes no further, by its head alone."""
        if self.wanted is not None and path.startswith("/v1"):
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            # It takes as long for any wrong key: no letter of it can be found by the clock.
            right = self.wanted and secrets.compare_digest(given.strip(), self.wanted)
            if not right or scheme.lower() != b"bearer":
                return APIError(401, "a key is wanted: send Authorization: Bearer and the key")
        coding = headers.get(b"content-encoding", b"identity").decode("latin-1")
        if coding.lower() != "identity":
            return APIError(415, f"Content-Encoding {coding} is not read here: send it as it is")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self.max_body:
            return APIError(413, self.too_large())
        return None

    def too_large(self) -> str:
        return f"the body is over {self.max_body} bytes: send less text"
