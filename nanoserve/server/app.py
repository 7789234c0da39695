"""The server: addresses, and the one way that all answers go.

Built in the book: day20. Edit there, then run book/tangle.py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request, Response
from starlette.responses import JSONResponse

from nanoserve.engine.engine import Engine
from nanoserve.server import addresses, errors
from nanoserve.server.gate import MAX_BODY, Gate
from nanoserve.server.prompts import Asked, check_count
from nanoserve.server.protocol import ChatRequest, CompletionRequest
from nanoserve.server.service import Service
from nanoserve.server.stream import Events, frames, together, while_there
from nanoserve.server.wire import Chat, Completion
from nanoserve.server.worker import AsyncEngine


def create_app(
    engine: Engine,
    model_name: str,
    *,
    api_key: str | None = None,
    max_waiting: int = 64,
    max_body: int = MAX_BODY,
) -> FastAPI:
    """An ASGI app that answers OpenAI's clients with this engine.

    From its start to its stop nobody else may touch the engine. With an
    `api_key`, /v1 asks for it. At most `max_waiting` requests wait for a
    row; a body has at most `max_body` bytes.
    """
    worker = AsyncEngine(engine, max_waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with worker:
            yield

    app = FastAPI(title="nanoserve", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.worker = worker
    app.add_middleware(Gate, api_key=api_key, max_body=max_body)
    errors.install(app)
    addresses.add(app, worker, model_name)
    service = Service(worker, model_name)

    @app.post("/v1/chat/completions")
    async def chat(asked: ChatRequest, request: Request) -> Response:
        return await answer(service, asked, Chat, request)

    @app.post("/v1/completions")
    async def completion(asked: CompletionRequest, request: Request) -> Response:
        return await answer(service, asked, Completion, request)

    return app


async def answer(service: Service, asked: Asked, form: type, request: Request) -> Response:
    """A chat or a completion, whole or as a stream."""
    service.worker.check_open()
    service.worker.check_places()  # Busy is said before a text is cut
    errors.check_model(asked.model, service.model)
    params = service.reader.params(asked)
    # In a thread: a long text holds up nobody else.
    prompts = await asyncio.to_thread(service.reader.prompts, asked)
    check_count(asked, len(prompts), service.worker.places)
    work = [(ids, each) for ids in prompts for each in params]
    async with AsyncExitStack() as held:
        submit = partial(service.submit, asked, held)
        answers = [await submit(*each) for each in work]
        # What is refused has been refused by now: a 200 may go out.
        writer = service.writer(asked, form, work)
        if asked.stream:
            return Events(frames(writer, answers), held.pop_all())

        async def listen() -> None:
            async for i, output in together(answers):
                writer.told[i] = output

        if await while_there(request.receive, listen()):
            return JSONResponse(writer.whole())
    return Response(status_code=499)  # to nobody: they have hung up
