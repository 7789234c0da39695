"""Chat templates: a conversation as one text, with its control tokens.

Built in the book: day12. Edit there, then run book/tangle.py.
"""

import json
import re
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import Any

from nanoserve.checkpoints.tokens import needed


def open_end(text: str, words: Collection[str]) -> int:
    """How much of the end of `text` may become one of `words`.

    In characters: the most that some word begins with, and is not all of.
    """
    most = max(map(len, words), default=0) - 1
    for n in range(min(most, len(text)), 0, -1):
        end = text[-n:]
        if any(word.startswith(end) and word != end for word in words):
            return n
    return 0


# Templates ask for these words, and none of them is a control token.
WORDS = {
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
    "ipython",
    "model",
    "text",
    "image",
}


def either(words: Collection[str]) -> str:
    """A pattern that finds any of the words, the longest that fits."""
    longest = sorted(words, key=len, reverse=True)
    return "|".join(map(re.escape, longest)) or "(?!)"


def fenced(
    value: Any,
    tokens: Collection[str],
    fence: str,
    halves: bool,
    spaces: bool = False,
) -> Any:
    """A copy with fences around every token that some text in it has.

    With `halves`, around what may become one as well: an end that some
    token begins with, a beginning that one ends with, a part of one. Not
    in the keys of a dict, by which templates find what they want. With
    `spaces`, around those beside a token too: a template may strip them.
    """
    if isinstance(value, dict):
        return {
            fenced(key, tokens, fence, False): fenced(each, tokens, fence, halves, spaces)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [fenced(each, tokens, fence, halves, spaces) for each in value]
    body = value.strip() if isinstance(value, str) else ""
    if not body or body in WORDS:
        return value
    head = tail = 0
    if halves:
        if any(body in token for token in tokens):
            return value.replace(body, body.join(fence))
        head = open_end(body[::-1], [token[::-1] for token in tokens])
        tail = min(open_end(body, tokens), len(body) - head)
    stop = len(body) - tail
    names = either(tokens)
    if spaces:
        names = rf"(?:(?<!\s)\s*)?(?:{names})\s*"
    middle = re.sub(names, lambda found: found[0].join(fence), body[head:stop])
    ends = [end.join(fence) if end else "" for end in (body[:head], body[stop:])]
    return value.replace(body, middle.join(ends))


# Rare letters: two of them are the fence. Python writes them as they are.
FENCES = range(0x20000, 0x2A6E0)

# Spaces beside a token, also as Python and JSON write them.
EDGES = r"^(\s|\\[a-z][\da-f]*)+|(\s|\\[a-z][\da-f]*)+$"


@lru_cache(maxsize=8)
def compiled(source: str) -> Any:
    """The template as jinja2 runs it: a sandbox, and HuggingFace's words.

    A template is a stranger's program. The sandbox keeps it from files
    and from Python's insides, not from taking long. ValueError where it
    cannot be read.
    """
    jinja2, sandbox = needed("jinja2"), needed("jinja2.sandbox")

    class Generation(needed("jinja2.ext").Extension):
        """{% generation %} marks answers for training: here, no more."""

        tags = frozenset({"generation"})

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            end = ("name:endgeneration",)
            body = parser.parse_statements(end, drop_needle=True)
            return jinja2.nodes.Scope(body).set_lineno(line)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    @jinja2.pass_context
    def tojson(given: Any, x: Any, ensure_ascii: bool = False, **more: Any) -> str:
        text = json.dumps(x, ensure_ascii=False, **more)
        if ensure_ascii:  # but for the fence, which is to be found again
            text = re.sub(
                f"[^\n -~{given.get('fence', '')}]", lambda c: json.dumps(c[0])[1:-1], text
            )
        return text

    def strftime_now(layout: str) -> str:
        return datetime.now().strftime(layout)

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        why = f"the chat template cannot be read: {error}"
        raise ValueError(why) from error


def plain(messages: Any) -> list[dict[str, Any]]:
    """A copy without keys that have None. ValueError names a fault."""
    if not isinstance(messages, list | tuple) or not messages:
        raise ValueError("a chat is a list of one message or more")
    for place, message in enumerate(messages):
        role = isinstance(message, dict) and message.get("role")
        if not isinstance(role, str):
            raise ValueError(
                f"message {place} must be a dict with a role and content: {message!r:.80}"
            )
    try:
        copy = json.loads(json.dumps(messages))
    except (TypeError, ValueError, RecursionError) as error:
        why = f"messages hold texts, numbers, lists, dicts: {error}"
        raise ValueError(why) from error
    return [{k: v for k, v in message.items() if v is not None} for message in copy]


def run(template: Any, messages: list, known: dict[str, Any]) -> str:
    """What a template writes. ValueError where it fails."""
    given = {"messages": messages, "tools": None, "documents": None}
    try:
        return template.render(given | known)
    except Exception as error:  # a stranger's program
        why = f"the chat template refuses these messages: {error}"
        raise ValueError(why) from error


Messages = Sequence[dict[str, Any]]


def render(
    source: str,
    messages: Messages,
    tokens: Collection[str],
    prefix: str,
    known: dict[str, Any],
) -> str:
    """The text that a template makes of messages.

    `prefix` stands before each of `tokens` that the template has written,
    and before none that a message has. `known` is what else the template
    may ask for. ValueError where it refuses the messages.
    """
    template, messages = compiled(source), plain(messages)
    used = source + json.dumps(messages, ensure_ascii=False)
    free = (letter for letter in map(chr, FENCES) if letter not in used)
    left, right = fence = "".join(islice(free, 2))
    known = known | {"fence": fence}
    off = str.maketrans("", "", fence)
    bare = run(template, messages, known)
    ways = ((True, False), (False, False), (True, True), (False, True))
    for way in ways:  # fences must not change what it writes
        said = fenced(messages, tokens, fence, *way)
        text = run(template, said, known)
        if text.translate(off) == bare:
            break
    names = either(tokens)

    def marked(found: re.Match) -> str:
        """What a fence is around, as it is; between two fences, names."""
        text, body = found[0], found[0][1:-1]
        if way[1]:
            body = re.sub(EDGES, "", body)
        if text[0] == left and any(body in token for token in tokens):
            return text
        return re.sub(names, lambda name: prefix + name[0], text)

    text = re.sub(f"{left}[^{fence}]*{right}|{names}", marked, text)
    return text.translate(off)
