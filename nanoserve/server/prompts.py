"""From what was asked to what the engine reads: ids, and how to go on from them."""

from dataclasses import replace
from typing import Any

from nanoserve.sampling import SamplingParams
from nanoserve.server.errors import APIError
from nanoserve.server.protocol import MOST_CHOICES, ChatRequest, CompletionRequest

Asked = CompletionRequest | ChatRequest


class Reader:
    """Makes ids of prompts.

    `room` is how many tokens prompt and answer may have together, `vocab` how many kinds there are.
    """

    def __init__(self, tokenizer: Any, room: int, vocab: int):
        self.tokenizer, self.room, self.vocab = tokenizer, room, vocab
        names = tokenizer.library.get_vocab() if tokenizer else [""]
        self.longest = max(map(len, names))  # characters that one token can stand for

    def prompts(self, asked: Asked) -> list[list[int]]:
        """The ids of each prompt; of a chat there is one. APIError names the field."""
        if isinstance(asked, ChatRequest):
            return [self.chat(asked)]
        given = asked.prompt
        if isinstance(given, str) or (given and isinstance(given[0], int)):
            given = [given]
        if not given:
            raise APIError(400, "prompt: an empty list asks for nothing", param="prompt")
        return [one if isinstance(one, list) else self.text(one) for one in given]

    def text(self, prompt: str) -> list[int]:
        """A text's ids. What it says stays text, names of control tokens too."""
        self.check("prompt", prompt)
        return self.tokenizer.encode(prompt)

    def chat(self, asked: ChatRequest) -> list[int]:
        """A conversation's ids, by the checkpoint's template."""
        texts = [message.text() for message in asked.messages]
        self.check("messages", *texts)
        roles = [message.role for message in asked.messages]
        if "developer" not in (self.tokenizer.template or ""):
            # OpenAI's newer word for it, which older templates do not know.
            roles = ["system" if role == "developer" else role for role in roles]
        said = zip(roles, texts, strict=True)
        messages = [{"role": role, "content": text} for role, text in said]
        try:
            return self.tokenizer.chat(messages)
        except ValueError as error:  # a template may want turns, or no system message
            raise APIError(400, str(error), param="messages") from None

    def check(self, param: str, *texts: str) -> None:
        """APIError for texts without a tokenizer, or too long however few tokens they are.

        To cut a megabyte into tokens takes a second: it is not begun.
        """
        if self.tokenizer is None:
            why = "this checkpoint has no tokenizer: ask /v1/completions with lists of ids"
            raise APIError(400, why, param=param)
        size = sum(map(len, texts))
        if size > self.room * self.longest:
            why = f"{size} characters are more than {self.room} tokens, and that is all the room"
            raise APIError(400, why, param=param, code="context_length_exceeded")

    def params(self, asked: Asked) -> list[SamplingParams]:
        """The params of each of the `n` answers to a prompt. With a seed, each has its own."""
        params = asked.params()
        for token in params.stop_token_ids:  # one that cannot come would be read and ignored
            if token >= self.vocab:
                why = f"stop_token_ids: {token} is outside the vocabulary of {self.vocab}"
                raise APIError(400, why, param="stop_token_ids")
        if isinstance(asked, ChatRequest) and self.tokenizer and not params.ignore_eos:
            ends = (*params.stop_token_ids, *self.tokenizer.turn_ends())
            params = replace(params, stop_token_ids=ends)
        if params.seed is None:
            return [params] * asked.n
        try:
            return [replace(params, seed=params.seed + i) for i in range(asked.n)]
        except ValueError as error:
            raise APIError(400, str(error), param="seed") from None

    def refused(self, error: ValueError, asked: Asked, ids: list[int]) -> APIError:
        """What the engine refuses, as the client reads it."""
        chat = isinstance(asked, ChatRequest)
        param, first = "messages" if chat else "prompt", str(error).partition(" ")[0]
        most = asked.params().max_tokens or 1
        code = "context_length_exceeded" if len(ids) + most > self.room else None
        return APIError(400, str(error), param="stop" if first == "stop" else param, code=code)


def check_count(asked: Asked, prompts: int, places: int) -> None:
    """APIError for more answers than one request may have, or than can ever wait at once."""
    count, most = prompts * asked.n, min(MOST_CHOICES, places)
    if count > most:
        why = f"{prompts} prompts with n = {asked.n} are {count} answers, and {most} is the most"
        raise APIError(400, why, param="n" if asked.n > 1 else "prompt")
