"""A conversation in the terminal: `nanoserve chat`."""

import re
import sys
from collections.abc import Iterator
from dataclasses import replace

from nanoserve.cache import KVCache
from nanoserve.generate import stream
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams
from nanoserve.text import Detokenizer, Tokenizer


class Conversation:
    """What was said, and a cache that holds what was read of it.

    `params.stop_token_ids` should have the ids that end an answer; `params.stop` may have texts.
    """

    def __init__(self, model: Llama, tokenizer: Tokenizer, params: SamplingParams, system: str):
        self.model, self.tokenizer, self.params = model, tokenizer, params
        self.first = [{"role": "system", "content": system}] if system else []
        self.messages, self.read, self.cache = list(self.first), [], None
        self.note = ""  # why the last answer ended, where it did not end by itself

    def answer(self, said: str) -> Iterator[str]:
        """The answer, as it is written. An answer that is left early is kept as far as it came.

        ValueError, before anything is kept of it, where `said` is too long for the context.
        """
        asked = [*self.messages, {"role": "user", "content": said}]
        ids, context = self.tokenizer.chat(asked), self.model.config.max_position_embeddings
        room = context - len(ids)
        if room < 1:
            raise ValueError(
                f"the conversation is {len(ids)} tokens long, and the context holds {context}: "
                "/new begins another one"
            )
        most = min(self.params.max_tokens or room, room)
        params = replace(self.params, max_tokens=most, stop=())
        pieces = stream(self.model, ids, params, self.prepared(ids, most))
        return self.written(asked, ids, pieces, room)

    def prepared(self, ids: list[int], most: int) -> KVCache:
        """The cache, cut to the beginning that it shares with `ids`, with room for `most` more."""
        needed, shared = len(ids) + most, 0
        if self.cache is None or self.cache.max_len < needed:
            weight, config = self.model.embed.weight, self.model.config
            # Room for some turns: a new cache has to read everything again.
            longest = min(max(4 * needed, 2048), max(needed, config.max_position_embeddings))
            self.cache = KVCache(config, 1, longest, weight.dtype, weight.device)
        known = min(self.cache.length, len(ids) - 1)  # one at least must be read
        while shared < known and self.read[shared] == ids[shared]:
            shared += 1
        self.cache.truncate(shared)
        return self.cache

    def written(
        self, asked: list[dict], ids: list[int], pieces: Iterator, room: int
    ) -> Iterator[str]:
        """The pieces as text; in the end, or when it is left, what was said is kept."""
        text, count, reason = "", 0, ""
        out = Detokenizer(self.tokenizer, self.params.stop)
        self.read = list(ids)
        try:
            for piece in pieces:
                token, reason = piece.token_ids[0], piece.finish_reason
                self.read.append(token)
                count += 1
                new = out.push(token)
                text += new
                yield new
                if out.stopped:
                    break
            rest = out.finish()
            text += rest
            yield rest
        finally:
            self.messages = [*asked, {"role": "assistant", "content": text}]
            full = "the context is full: /new begins another conversation"
            self.note = ""
            if reason == "length" and not out.stopped:
                self.note = full if count == room else f"{count} tokens: --max-tokens allows more"

    def renew(self) -> None:
        """Forget all that was said."""
        self.messages = list(self.first)


def lines(terminal: bool) -> Iterator[str]:
    """What the user says, a line each. In a terminal Ctrl-C drops the line that is being typed."""
    while True:
        try:
            if terminal:
                yield input("> ")
            elif line := sys.stdin.readline():
                yield line
            else:
                return
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            if not terminal:
                raise
            print()


def talk(conversation: Conversation) -> None:
    """Read a line, write the answer, until /exit or the end of the input."""
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if terminal:
        import readline  # noqa: F401, arrow keys and earlier lines in input()

        tell("/exit or Ctrl-D ends, Ctrl-C stops an answer, /new forgets what was said")
    for line in lines(terminal):
        said = line.strip()
        if said == "/exit":
            return
        if said == "/new":
            conversation.renew()
        elif re.fullmatch(r"/\w+", said):
            tell(f"there is no command {said}: /new and /exit are all")
        elif said:
            say(conversation, said, terminal)


def say(conversation: Conversation, said: str, terminal: bool) -> None:
    """One answer, streamed to the terminal; Ctrl-C stops it."""
    try:
        pieces = conversation.answer(said)
    except ValueError as error:
        tell(f"error: {error}")
        return
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
        print(flush=True)
    except KeyboardInterrupt:
        print(flush=True)
        if not terminal:
            raise
    finally:
        pieces.close()
    if conversation.note:
        tell(f"({conversation.note})")


def tell(text: str) -> None:
    """To the user, beside the conversation."""
    print(text, file=sys.stderr, flush=True)
