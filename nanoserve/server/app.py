"""The server: addresses, and the one way that all answers go.

Built in the book: day20. Edit there, then run book/tangle.py.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI, Request, Response
from starlette.responses import JSONResponse

from nanoserve.engine.engine import Engine
from nanoserve.server import addresses, errors
from nanoserve.server.answer import Answer
from nanoserve.server.gate import MAX_BODY, Gate
from nanoserve.server.prompts import Asked, Reader, check_count
from nanoserve.server.protocol import ChatRequest, CompletionRequest
from nanoserve.server.stream import Events, Writer, frames, together, while_there
from nanoserve.server.wire import Chat, Completion
from nanoserve.server.worker import AsyncEngine


class Counter:
    """Where requests are taken, refused, and answered."""

    def __init__(self, worker: AsyncEngine, model: str):
        self.worker, self.model, engine = worker, model, worker.engine
        self.reader = Reader(engine.tokenizer, engine.max_model_len)

    async def answer(self, asked: Asked, form: type, request: Request) -> Response:
        """A chat or a completion, whole or as a stream."""
        self.worker.check_open()
        self.worker.check_place()  # before any text is cut into tokens
        errors.check_model(asked.model, self.model)
        params = self.reader.params(asked)
        # In a thread: a long text holds up nobody else.
        prompts = await asyncio.to_thread(self.reader.prompts, asked)
        check_count(asked, len(prompts), self.worker.places)
        async with AsyncExitStack() as held:
            work = [(ids, each) for ids in prompts for each in params]
            answers = [await self.submit(asked, held, *each) for each in work]
            # What is refused has been refused by now: a 200 may go out.
            writer = self.writer(asked, form, work)
            if asked.stream:
                return Events(frames(writer, answers), held.pop_all())
            if await while_there(request.receive, listen(writer, answers)):
                return JSONResponse(writer.whole())
        return Response(status_code=499)  # to nobody: they have hung up

    async def submit(self, asked, held: AsyncExitStack, ids, params) -> Answer:
        """An answer that ends, at the latest, with `held`."""
        try:
            answer = await self.worker.submit(ids, params)
        except ValueError as error:
            raise self.reader.refused(error, asked, ids) from None
        return await held.enter_async_context(answer)

    def writer(self, asked: Asked, form: type, work: Sequence[tuple]) -> Writer:
        """What writes these answers in the form that was asked for."""
        tokenizer = self.worker.engine.tokenizer
        forms = [form(tokenizer, params.logprobs) for _, params in work]
        return Writer(self.model, forms, [ids for ids, _ in work], asked)


async def listen(writer: Writer, answers: Sequence[Answer]) -> None:
    """Hear all answers to their ends, and send nothing."""
    async for i, output in together(answers):
        writer.told[i] = output


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
    counter = Counter(worker, model_name)

    @app.post("/v1/chat/completions")
    async def chat(asked: ChatRequest, request: Request) -> Response:
        return await counter.answer(asked, Chat, request)

    @app.post("/v1/completions")
    async def completion(asked: CompletionRequest, request: Request) -> Response:
        return await counter.answer(asked, Completion, request)

    return app
