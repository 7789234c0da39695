"""What the two addresses share: the engine, its tokenizer, and how answers begin."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from nanoserve.sampling import SamplingParams
from nanoserve.server.answer import Answer
from nanoserve.server.prompts import Asked, Reader
from nanoserve.server.worker import AsyncEngine
from nanoserve.server.writer import Writer


class Service:
    """An engine that is served under the name `model`."""

    def __init__(self, worker: AsyncEngine, model: str):
        self.worker, self.model = worker, model
        self.tokenizer = worker.engine.tokenizer
        engine = worker.engine
        self.reader = Reader(self.tokenizer, engine.max_model_len, engine.model.config.vocab_size)

    async def submit(
        self, asked: Asked, held: AsyncExitStack, ids: Sequence[int], params: SamplingParams
    ) -> Answer:
        """An answer that ends, at the latest, with `held`. APIError where it is refused."""
        try:
            answer = await self.worker.submit(ids, params)
        except ValueError as error:
            raise self.reader.refused(error, asked, ids) from None
        return await held.enter_async_context(answer)

    def writer(self, asked: Asked, form: type, work: Sequence[tuple]) -> Writer:
        """What writes these answers in the form that was asked for."""
        forms = [form(self.tokenizer, params.logprobs) for _, params in work]
        return Writer(self.model, forms, [ids for ids, _ in work], asked)
