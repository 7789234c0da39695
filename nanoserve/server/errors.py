"""Errors as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}}."""

import difflib
import math
import re
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from nanoserve.server.answer import Busy, EngineError, Stopped
from nanoserve.server.off import OFF

CODES = {
    401: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    415: "unsupported_encoding",
    429: "rate_limit_exceeded",
}
WORDS = {
    400: "the body is no JSON in UTF-8",
    404: "there is no such address here",
    405: "this address does not answer that method",
}


class APIError(Exception):
    """A refusal: its HTTP status, what is wrong, and the field that it is about."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code or CODES.get(status)


def shape(status: int, message: str, param: str | None, code: str | None) -> dict[str, Any]:
    """The object. What is no Unicode, half of a character in a field's name, is escaped."""
    if status == 429:
        kind = "rate_limit_error"
    else:
        kind = "invalid_request_error" if status < 500 else "server_error"
    said = {"message": message, "type": kind, "param": param, "code": code}
    return {"error": {key: value and printable(value) for key, value in said.items()}}


TEXT = {"anyOf": [{"type": "string"}, {"type": "null"}]}
ERROR = {  # the same as a schema, of every answer that is no 200
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}}
            | {"param": TEXT, "code": TEXT},
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
DOCUMENTED = {
    "default": {"description": "An error", "content": {"application/json": {"schema": ERROR}}}
}


def printable(text: str) -> str:
    """The text, with an escape for each half of a character."""
    return text.encode("utf-8", "backslashreplace").decode()


def response(error: Exception) -> JSONResponse:
    """The answer to a request that ends with this error."""
    headers = None
    if isinstance(error, APIError):
        status, param, code = error.status, error.param, error.code
    else:
        status, param, code = status_of(error), None, None
    if isinstance(error, Busy):
        headers = {"Retry-After": str(math.ceil(error.retry_after))}
    if isinstance(error, HTTPException):
        headers = error.headers
    if status == 401:
        headers = {"WWW-Authenticate": "Bearer"}
    message = str(error)
    if isinstance(error, HTTPException):
        message = WORDS.get(status, error.detail)
    elif status == 500 and not isinstance(error, EngineError):
        message = "the server failed at this request: its log says how"
    return JSONResponse(shape(status, message, param, code or CODES.get(status)), status, headers)


def status_of(error: Exception) -> int:
    """The HTTP status of an error that has none of its own, or of one of Starlette's."""
    if isinstance(error, HTTPException):
        return error.status_code
    return 429 if isinstance(error, Busy) else 503 if isinstance(error, Stopped) else 500


def check_model(name: str | None, served: str) -> None:
    """APIError where somebody asks for a model that is not here."""
    if name is not None and name != served:
        why = f"the model {name!r} is not here: {served!r} is"
        raise APIError(404, why, param="model", code="model_not_found")


KINDS = re.compile(r"str|int|float|bool|constrained-.*|(list|dict|tuple|function-\w+)\[.*")


def steps(place: tuple) -> list[str]:
    """The way to a field: messages, 0, content. Names of types are no part of it."""
    return [str(step) for step in place if not KINDS.fullmatch(str(step))]


def nearness(found: dict[str, Any]) -> tuple[bool, int, bool]:
    """How well one of pydantic's errors says what was meant, of a value that may be many things.

    What is there and not wanted says more than what is missing: a call of a tool has no content.
    """
    depth = len(steps(found["loc"]))
    return not found["type"].endswith("_type"), depth, found["type"] != "missing"


def of_validation(error: RequestValidationError, path: str) -> APIError:
    """The first thing that is wrong with a body; of a value that may be many things, the nearest.

    A list of parts that is wrong in one part is no text either: that is not what is wrong with it.
    `path` is the address that was asked.
    """
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        why = found[0].get("ctx", {}).get("error", "")
        return APIError(400, f"the body is no JSON: {why}", code="invalid_json")
    first = max(found, key=nearness)
    place, extra = first["loc"][1:], first["type"] == "extra_forbidden"  # without "body"
    if not place:
        why = first["msg"].removeprefix("Value error, ")
        if first["type"] != "value_error":
            why = "the body must be a JSON object, sent as Content-Type: application/json"
        named = why.partition(" ")[0]
        return APIError(400, why, param=named if "_" in named else None)
    # A field that somebody made up may have any name, that of a type too, or none.
    param = ".".join([*steps(place[:-1]), str(place[-1])]) if extra else ".".join(steps(place))
    if extra:
        from nanoserve.server.protocol import ChatRequest, CompletionRequest

        why = "not built here, leave it out"
        if param.rpartition(".")[2] not in OFF:
            form = ChatRequest if "/chat/" in path else CompletionRequest
            near = difflib.get_close_matches(param, form.model_fields, 1, 0.7)
            why = "there is no such field" + (f", is it {near[0]}?" if near else "")
    elif place[0] == "prompt" and first["type"].endswith("_type"):  # of one of its four kinds
        why, param = "is no text, no ids, and no list of texts or of lists of ids", "prompt"
    else:
        why = first["msg"].removeprefix("Value error, ")
    return APIError(400, f"{param or repr(param)}: {why}", param=param)


def install(app: FastAPI) -> None:
    """Let every error of `app` have this shape, and its /openapi.json say so of what is added."""
    app.router.responses = DOCUMENTED

    async def known(request: Request, error: Exception) -> JSONResponse:
        return response(error)

    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return response(of_validation(error, request.url.path))

    for kind in (APIError, Busy, Stopped, EngineError, HTTPException, Exception):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, invalid)
