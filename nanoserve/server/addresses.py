"""The small addresses: the chat page, the models, the health."""

from importlib.resources import files

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from nanoserve.server.errors import check_model
from nanoserve.server.metrics import Metrics
from nanoserve.server.worker import AsyncEngine

# The page is one file, and asks nobody but this server.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add(app: FastAPI, worker: AsyncEngine, model: str) -> None:
    """Let `app` answer at /, /health, /metrics, /v1/models and /v1/models/NAME."""
    page = files("nanoserve.server").joinpath("page.html").read_text("utf-8")
    engine, metrics = worker.engine, Metrics(model, worker)
    card = {
        "id": model,
        "object": "model",
        "created": 0,
        "owned_by": "nanoserve",
        "max_model_len": engine.max_model_len,
    }

    @app.get("/", response_class=HTMLResponse)
    async def chat_page() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})

    @app.get("/health")
    async def health() -> JSONResponse:
        healthy = worker.healthy
        return JSONResponse({"healthy": healthy}, 200 if healthy else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def numbers() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": [card]})

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> JSONResponse:
        check_model(name, model)
        return JSONResponse(card)
