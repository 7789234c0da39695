"""What may be asked, field by field, under OpenAI's names, or vLLM's where OpenAI has none.

A field that is not here is refused by its name. Those of OFF are known, and nothing of them is
built: they may say that they are not wanted, and no more.
"""

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from nanoserve.sampling import SamplingParams
from nanoserve.server.errors import APIError
from nanoserve.server.off import OFF
from nanoserve.text import valid

MOST_CHOICES = 64  # answers to one request: prompts times n
MOST_LOGPROBS = 20


def is_off(name: str, value: Any) -> bool:
    """Whether a field says no more than that it is not wanted."""
    return any(type(value) is type(off) and value == off for off in OFF.get(name, ()))


class Strict(BaseModel):
    """An object of the wire. null is as good as absent; what is not named here is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def said(cls, data: Any) -> Any:
        """Without what says nothing."""
        if not isinstance(data, dict):
            return data
        return {k: v for k, v in data.items() if v is not None and not is_off(k, v)}


Text = Annotated[str, AfterValidator(valid)]  # JSON can hold half of a character


class Part(Strict):
    """A piece of a message. Pictures and sounds are not built."""

    type: Literal["text"]
    text: Text


class Message(Strict):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(max_length=256)]

    def text(self) -> str:
        """The content as one text: parts are lines, as in vLLM."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class StreamOptions(Strict):
    """What a stream has besides."""

    include_usage: bool = False
    continuous_usage_stats: bool = False  # vLLM's: in every chunk, so far


Stop = Annotated[Text, Field(min_length=1, max_length=256)]


class Common(Strict):
    """What completions and chats have in common: SamplingParams, and the form of the answer."""

    model: str | None = None
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    return_token_ids: bool = False
    user: str | None = None  # for the caller's own books: no answer depends on it
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stop_token_ids: Annotated[list[int], Field(max_length=256)] | None = None
    ignore_eos: bool | None = None

    @model_validator(mode="after")
    def options_of_a_stream(self) -> "Common":
        """stream_options without a stream would be read and ignored."""
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for a stream: set stream, or leave it out")
        options = self.stream_options or StreamOptions()
        if options.continuous_usage_stats and not options.include_usage:
            raise ValueError("continuous_usage_stats needs include_usage: set it to true")
        return self

    def given(self) -> dict[str, Any]:
        """What was said of the fields of SamplingParams."""
        names = {field.name for field in fields(SamplingParams)} - {"logprobs"}
        return {k: v for k in names if (v := getattr(self, k)) is not None}


class CompletionRequest(Common):
    """POST /v1/completions: one prompt or several, as texts or as ids."""

    prompt: (
        Text
        | Annotated[list[Text], Field(max_length=MOST_CHOICES)]
        | list[int]
        | Annotated[list[list[int]], Field(max_length=MOST_CHOICES)]
    )
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)

    def params(self) -> SamplingParams:
        """16 tokens at most, unless said otherwise."""
        return sampling(self.given() | {"logprobs": self.logprobs})


class ChatRequest(Common):
    """POST /v1/chat/completions: a conversation."""

    messages: list[Message] = Field(min_length=1, max_length=1024)
    max_completion_tokens: int | None = None  # OpenAI's newer name of max_tokens
    prompt_cache_key: str | None = None  # as `user`: ours finds shared beginnings by itself
    safety_identifier: str | None = None
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)

    @model_validator(mode="after")
    def agreeing(self) -> "ChatRequest":
        """Two fields that speak of one thing must not contradict each other."""
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: set it to true")
        if self.max_completion_tokens is not None and self.max_tokens is not None:
            raise ValueError("max_completion_tokens and max_tokens are one field: give one of them")
        return self

    def params(self) -> SamplingParams:
        """As many tokens as there is room for, unless said otherwise."""
        most = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        count = (self.top_logprobs or 0) if self.logprobs else None
        return sampling(self.given() | {"max_tokens": most, "logprobs": count})


def sampling(given: dict[str, Any]) -> SamplingParams:
    """SamplingParams, or an APIError that names the field."""
    try:
        return SamplingParams(**given)
    except ValueError as error:
        first = str(error).partition(" ")[0]
        raise APIError(400, str(error), param=first if first in given else None) from None
