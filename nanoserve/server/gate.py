"""What every request passes first: is the key right, is the body small enough?"""

import secrets

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanoserve.server.errors import APIError, response

MAX_BODY = 2**20  # bytes: more text than most contexts hold


class Gate:
    """An ASGI app around another one.

    With an `api_key`, addresses under /v1 answer whoever sends it, and nobody else. A body over
    `max_body` bytes is refused by its stated length, or when so much of it has come.
    """

    def __init__(self, app: ASGIApp, api_key: str | None = None, max_body: int = MAX_BODY):
        self.app, self.max_body = app, max_body
        self.wanted = api_key and f"Bearer {api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if error := self.refused(scope["path"], dict(scope["headers"])):
            return await response(error)(scope, receive, send)
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
        if self.wanted and path.startswith("/v1"):
            given = headers.get(b"authorization", b"")
            # It takes as long for any wrong key: no letter of it can be found by the clock.
            if not secrets.compare_digest(given, self.wanted):
                return APIError(401, "a key is wanted: send Authorization: Bearer and the key")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self.max_body:
            return APIError(413, self.too_large())
        return None

    def too_large(self) -> str:
        return f"the body is over {self.max_body} bytes: send less text"
