"""Text into ids and out again: control tokens, chats, streams, stops.

Built in the book: day12. Edit there, then run book/tangle.py.
"""

import json
import re
import secrets
from collections.abc import Collection, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from nanoserve.checkpoints.tokens import named_tokens, read_tokenizer
from nanoserve.spelling import Spelling, woven
from nanoserve.template import WORDS, Messages, either, open_end, render


def renamed(library: Any, tokens: Collection[str], prefix: str) -> Any:
    """A copy in which each of `tokens` keeps its id and has a new name.

    That is `prefix` and the old name, which now is text like any other.
    """
    data, tokens = json.loads(library.to_str()), set(tokens)

    def new(token: str) -> str:
        return prefix + token if token in tokens else token

    for added in data["added_tokens"]:
        added["content"] = new(added["content"])
    model = data["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {new(t): i for t, i in model["vocab"].items()}
    else:  # Unigram's are pairs of a token and its score
        model["vocab"] = [[new(t), score] for t, score in model["vocab"]]
    if model.get("unk_token"):
        model["unk_token"] = new(model["unk_token"])
    return type(library).from_str(json.dumps(data))


def valid(text: str) -> str:
    """The text. ValueError for what is none, or is not Unicode."""
    if not isinstance(text, str):
        raise ValueError(f"a text is wanted, not {text!r:.60}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        why = f"character {error.start} is half of one, a surrogate"
        raise ValueError(why) from None
    return text


def is_written(token: Any, template: str) -> bool:
    """Whether a template writes an added token: no space, no role.

    As it is, or built around a role: `'<|' + message.role + '|>'`.
    """
    name, parts = token.content, re.findall(r"\w+|\W+", token.content)
    around = [part for part in parts if part not in WORDS]
    if 0 < len(around) < len(parts):
        return all(part in template for part in around)
    return not (name.isspace() or name in WORDS) and name in template


def ending(tokenizer: "Tokenizer") -> str:
    """The control token that a template puts behind an answer, or ""."""
    asked = {"role": "user", "content": "?"}
    answer = {"role": "assistant", "content": "0123"}
    try:
        text = tokenizer.written([asked, answer], False)
    except ValueError:
        return ""
    _, there, after = text.rpartition("0123")
    names = either(tokenizer.control.values())
    end = re.match(rf"\s*{tokenizer.prefix}({names})", after)
    return end[1] if there and end else ""


class Tokenizer:
    """A checkpoint's tokens: texts and chats to ids, ids to text.

    `control` has the names of control tokens by id: the special ones and
    the added ones that the chat template writes, but for words that a
    text's letters make as well. `special` has the ids that no text shows.
    """

    def __init__(self, library: Any, settings: dict[str, Any]):
        self.library, self.spelling = library, Spelling(library)
        self.template = settings.get("chat_template")
        self.named = named_tokens(settings)
        added = library.get_added_tokens_decoder()
        self.special = {i for i, token in added.items() if token.special}
        named = {
            i: token.content
            for i, token in added.items()
            if i in self.special or is_written(token, self.template or "")
        }
        words = woven(library, {*named.values()})
        self.control = {i: n for i, n in named.items() if n not in words}
        # Nobody can type a name that every process makes anew.
        self.prefix = secrets.token_hex(8)
        self.safe = renamed(library, self.control.values(), self.prefix)

    @classmethod
    def from_pretrained(cls, path: str | PathLike) -> "Tokenizer":
        """That of the checkpoint in folder `path`. CheckpointError."""
        return cls(*read_tokenizer(Path(path)))

    def encode(self, text: str, control: bool = False) -> list[int]:
        """A text's ids, with bos and eos where the checkpoint adds them.

        Names of control tokens in it are text, or tokens with `control`.
        """
        library = self.library if control else self.safe
        return library.encode(valid(text)).ids

    def chat(self, messages: Messages, add_generation_prompt: bool = True) -> list[int]:
        """A conversation's ids, as the checkpoint's template writes it.

        No bos is added to it: the template writes one if it is wanted.
        ValueError where the template refuses the messages.
        """
        text = self.written(messages, add_generation_prompt)
        return self.safe.encode(valid(text), add_special_tokens=False).ids

    def written(self, messages: Messages, add_generation_prompt: bool) -> str:
        """The text of `chat`, with `prefix` before its control tokens."""
        if self.template is None:
            raise ValueError("this checkpoint has no chat template")
        names, known = self.control.values(), dict(self.named)
        known["add_generation_prompt"] = add_generation_prompt
        return render(self.template, messages, names, self.prefix, known)

    def decode(self, ids: Sequence[int], control: bool = False) -> str:
        """The text of ids. Special tokens are left out, or named."""
        data, first = b"", True
        for i in ids:
            if self.shows(i, control):
                data += self.spelling.bytes_of(i, first)
                first = False
        return self.spelling.characters()(data, True)

    def shows(self, token_id: int, control: bool = False) -> bool:
        """Whether it is a token of texts. ValueError for what is no id."""
        known = self.spelling.known(token_id)
        return known and (control or token_id not in self.special)

    def turn_ends(self) -> tuple[int, ...]:
        """The id with which the template ends an answer, if it has one."""
        end = ending(self)
        return tuple(i for i, name in self.control.items() if name == end)

    def called(self, names: Collection[str]) -> tuple[int, ...]:
        """Special tokens of these names, which no stop text would find."""
        names_of = self.library.id_to_token
        return tuple(i for i in self.special if names_of(i) in names)


class Detokenizer:
    """Text from ids as they come: all that is sure, and nothing twice.

    A character is held until its last byte is there, and the beginning
    of a `stop` until it is seen to be none: at most 3 bytes, and a
    character less than the longest stop. Of several stops the one that is
    complete first ends the text, of two at once the longer. The text
    ends before it, and `stopped` is True.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Collection[str] = ()):
        self.stops = (stop,) if isinstance(stop, str) else tuple(stop)
        if not all(map(valid, self.stops)):
            raise ValueError("a stop text is empty")
        self.tokenizer, self.first = tokenizer, True
        self.take = tokenizer.spelling.characters()
        self.held, self.stopped = "", False

    def push(self, token_id: int) -> str:
        """What may be sent now that this token is there."""
        if not self.tokenizer.shows(token_id):
            return ""
        data = self.tokenizer.spelling.bytes_of(token_id, self.first)
        self.first = False
        return self.send(self.take(data, False))

    def finish(self) -> str:
        """What is left to send when no more comes."""
        text = self.send(self.take(b"", True))
        text, self.held = text + self.held, ""
        return text

    def send(self, text: str) -> str:
        """Of what is held and new: the part that nothing can change."""
        if self.stopped:
            return ""
        text = self.held + text
        starts = [(text.find(stop), stop) for stop in self.stops]
        found = [(at + len(stop), at) for at, stop in starts if at >= 0]
        if found:
            self.stopped, self.held = True, ""
            return text[: min(found)[1]]
        sure = len(text) - open_end(text, self.stops)
        self.held = text[sure:]
        return text[:sure]
