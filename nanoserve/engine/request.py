"""What an engine knows of one request, and what it says of it.

Built in the book: day16. Edit there, then run book/tangle.py.
"""

from dataclasses import dataclass, field

from nanoserve.sampling import Logprob, SamplingParams


@dataclass(eq=False)  # two requests are never the same one
class Request:
    """A text on its way.

    `tokens` are all that are known, the prompt's first. `computed` is
    how many of them have their keys and values in the pool, in the
    blocks of `table`. `cached` of those were there before the request
    was, None until it first runs. Only requests with the same
    `cache_salt` share blocks. `text` is what its output says, as far as
    it may be told. `finish_reason` is None until it ends.
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    cache_salt: str | None = None
    tokens: list[int] = field(init=False)
    computed: int = 0
    table: list[int] = field(default_factory=list)
    cached: int | None = None
    text: str = ""
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    finish_reason: str | None = None

    def __post_init__(self):
        salt, self.tokens = self.cache_salt, list(self.prompt_ids)
        if salt is not None and (type(salt) is not str or not salt):
            asked = f"cache_salt is {salt!r}"
            raise ValueError(f"{asked}, wanted a text that is not empty")

    @property
    def behind(self) -> int:
        """How many known tokens are not computed."""
        return len(self.tokens) - self.computed

    @property
    def output_ids(self) -> list[int]:
        """What has been written so far."""
        return self.tokens[len(self.prompt_ids) :]

    def ending(self) -> str | None:
        """Why its newest token is the last: "stop", "length", or None."""
        if self.tokens[-1] in self.params.stop_token_ids:
            return "stop"
        full = len(self.prompt_ids) + self.params.max_tokens
        return "length" if len(self.tokens) >= full else None


@dataclass(frozen=True)
class RequestOutput:
    """A request as it stands after a step: all of it so far.

    `text` may be sent: what a stop string could still swallow is held
    back. `logprobs` has a dict for each id, if they were asked for.
    `num_cached_tokens` of the prompt were not computed for it.
    """

    request_id: str
    prompt_token_ids: list[int]
    token_ids: list[int]
    text: str = ""
    finished: bool = False
    finish_reason: str | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    num_cached_tokens: int = 0
