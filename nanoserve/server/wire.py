"""The two forms of an answer on the wire: a chat's and a completion's."""

from collections.abc import Sequence
from typing import Any

from nanoserve.engine.request import RequestOutput
from nanoserve.sampling import Logprob

Rows = Sequence[dict[int, Logprob]]


class Names:
    """The tokens of one answer as texts, in order: `place` counts them."""

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.place = tokenizer, 0

    def data(self, token: int) -> bytes:
        """The bytes of a token that stands here; of a control token, its name."""
        if self.tokenizer is None:
            return f"token_id:{token}".encode()
        if not self.tokenizer.shows(token):
            return self.tokenizer.decode([token], control=True).encode()
        return self.tokenizer.spelling.bytes_of(token, not self.place)

    def text(self, token: int) -> str:
        """The same as a text, with escapes where a character is not whole, as OpenAI has it.

        Two tokens that are parts of characters would else have one name, and be one in a dict.
        """
        data = self.data(token)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def number(logprob: Logprob) -> float:
    """The log of a probability. JSON has no infinity: vLLM writes this number for it."""
    return max(logprob.logprob, -9999.0)


def best(row: dict[int, Logprob], count: int) -> list[tuple[int, Logprob]]:
    """The `count` likeliest of a row, the best first."""
    return sorted(row.items(), key=lambda item: -item[1].logprob)[:count]


class Chat:
    """/v1/chat/completions: a message, and in a stream deltas of it."""

    prefix, whole, chunk = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def __init__(self, tokenizer: Any, count: int | None):
        self.names, self.count = Names(tokenizer), count  # count: logprobs asked for, or None

    def opening(self) -> dict[str, Any] | None:
        """What a stream says of a choice before it has a token."""
        return {"delta": {"role": "assistant", "content": ""}}

    def prompt(self, ids: Sequence[int]) -> tuple[dict, dict]:
        """The prompt's ids: what a choice has of them, and what the object around it has."""
        return {}, {"prompt_token_ids": list(ids)}

    def piece(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def message(self, text: str) -> dict[str, Any]:
        # OpenAI's schema wants a refusal wherever a content is, and clients check it.
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def logprobs(self, ids: Sequence[int], rows: Rows) -> dict[str, Any]:
        """Of the next tokens: each with its bytes, and with the likeliest in its place."""
        content = []
        for token, row in zip(ids, rows, strict=True):
            top = [self.entry(i, logprob) for i, logprob in best(row, self.count)]
            content.append(self.entry(token, row[token]) | {"top_logprobs": top})
            self.names.place += 1
        return {"content": content, "refusal": None}

    def entry(self, token: int, logprob: Logprob) -> dict[str, Any]:
        text, data = self.names.text(token), self.names.data(token)
        return {"token": text, "logprob": number(logprob), "bytes": list(data)}


class Completion:
    """/v1/completions: a text, and in a stream pieces of it."""

    prefix, whole, chunk = "cmpl-", "text_completion", "text_completion"

    def __init__(self, tokenizer: Any, count: int | None):
        self.names, self.count = Names(tokenizer), count
        self.take = tokenizer and tokenizer.spelling.characters()
        self.offset = 0  # in the answer's text, of the next token

    def opening(self) -> None:
        return None

    def prompt(self, ids: Sequence[int]) -> tuple[dict, dict]:
        return {"prompt_token_ids": list(ids)}, {}

    def piece(self, text: str) -> dict[str, Any]:
        return {"text": text}

    message = piece

    def logprobs(self, ids: Sequence[int], rows: Rows) -> dict[str, Any]:
        """Four lists, an entry for each of the next tokens; the chosen one is in its dict too."""
        told = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token, row in zip(ids, rows, strict=True):
            told["tokens"].append(self.names.text(token))
            told["token_logprobs"].append(number(row[token]))
            likely = {token: row[token]} | dict(best(row, self.count))
            told["top_logprobs"].append({self.names.text(i): number(p) for i, p in likely.items()})
            told["text_offset"].append(self.offset)
            if self.take and self.names.tokenizer.shows(token):
                self.offset += len(self.take(self.names.data(token), False))
            self.names.place += 1
        return told


def usage(outputs: Sequence[RequestOutput], n: int) -> dict[str, Any]:
    """Tokens read and written. A prompt counts once, however many answers it has."""
    prompts = outputs[::n]
    read = sum(len(output.prompt_token_ids) for output in prompts)
    written = sum(len(output.token_ids) for output in outputs)
    cached = sum(output.num_cached_tokens for output in prompts)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
