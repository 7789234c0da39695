"""Stop texts and forged names, in every text, cut in every way: Day 12."""

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from itertools import product

from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers

from nanoserve.checks.common import agree, attempt, must_raise
from nanoserve.checks.text_streams import MARK, streamed
from nanoserve.template import either, fenced, open_end
from nanoserve.text import Detokenizer, Tokenizer


def small(words: Collection[str]) -> Tokenizer:
    """A tokenizer whose tokens are these words, and single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = dict.fromkeys([*alphabet, *words])
    library = Library(models.BPE({word: i for i, word in enumerate(vocab)}, []))
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<end>"])
    return Tokenizer(library, {"chat_template": None})


STOPS = (
    ("a",),
    ("ab",),
    ("aab",),
    ("aba", "bb"),
    ("bab", "ab"),
    ("ab", "bab"),
    ("b", "abb"),
    ("abab", "ba"),
    ("aaaa", "bbb", "aba"),
    ("abbaab",),
)


@cache
def wanted(text: str, stops: Sequence[str], ended: bool) -> tuple[str, bool]:
    """Letter by letter: the text until a stop is complete, and whether one was.

    Before the text has ended, what may yet become a stop is held, and no more.
    """
    for n in range(len(text) + 1):
        if done := [stop for stop in stops if text[:n].endswith(stop)]:
            return text[: n - max(map(len, done))], True
    begun = 0 if ended else longest_begun(text, stops)
    return text[: len(text) - begun], False


def longest_begun(text: str, words: Sequence[str]) -> int:
    """How many letters at the end of the text may become one of the words."""
    begun = (n for word in words for n in range(1, len(word)) if text.endswith(word[:n]))
    return max(begun, default=0)


def splits(text: str) -> Iterator[list[str]]:
    """Every way to cut a text into words of at most three letters."""
    if not text:
        yield []
    for n in range(1, min(3, len(text)) + 1):
        for rest in splits(text[n:]):
            yield [text[:n], *rest]


def check_stops() -> None:
    """Every text of six letters a and b, cut into tokens in every way, with several stops."""
    words = ["".join(w) for n in (1, 2, 3) for w in product("ab", repeat=n)]
    tokenizer = small(words)
    number = {word: tokenizer.library.token_to_id(word) for word in words}
    for letters_of in product("ab", repeat=6):
        text = "".join(letters_of)
        for parts in splits(text):
            ids = [number[part] for part in parts]
            for stops in STOPS:
                check_stop(tokenizer, ids, parts, stops)
    check_open_end(words)


def check_open_end(texts: Collection[str]) -> None:
    """Ends of texts that may become one of several words, against the words' own beginnings."""
    for text, words in product(["", *texts, "xab"], [(), *STOPS]):
        mine = attempt("open_end", open_end, text, words)
        agree(f"open_end({text!r}, {words})", mine, longest_begun(text, words))


NAMES = (("aba",), ("ab", "bba"), ("aab", "ab", "abab"))


def check_fences() -> None:
    """Texts of up to five letters, with parts of names around them: no name outside a fence."""
    texts = ["".join(w) for n in range(1, 6) for w in product("ab", repeat=n)]
    off = str.maketrans("", "", "()")
    for names in NAMES:
        for name in names:
            found = re.match(either(names), name)
            agree(f"what either({names}) finds in {name!r}", found and found[0], name)
        cuts = [(name, n) for name in names for n in range(1, len(name))]
        parts = {name[:n] for name, n in cuts} | {name[n:] for name, n in cuts}
        tame = ["", *sorted(part for part in parts if not has(part, names))]
        for text in texts:
            what = f"{text!r} fenced for the names {names}"
            mine = attempt("fenced", fenced, text, names, "()", True)
            agree(f"{what}, fences taken off", mine.translate(off), text)
            outside = re.sub(r"\(\w+\)", "|", mine)
            for before, after in product(tame, repeat=2):  # a template may write these
                there = has(before + outside + after, names)
                agree(f"{what} is {mine!r}: names outside, in {before}..{after}", there, [])


def has(text: str, names: Collection[str]) -> list[str]:
    """The names that are in a text."""
    return [name for name in names if name in text]


def check_stop(tokenizer: Tokenizer, ids: list[int], parts: list[str], stops: Sequence) -> None:
    """One stream: what is sent, when, and where it stops."""
    stream, sent, there = Detokenizer(tokenizer, stops), "", ""
    for i, part in zip(ids, parts, strict=True):
        sent += stream.push(i)
        there += part
        text, stopped = wanted(there, stops, False)
        if (sent, stream.stopped) != (text, stopped):
            what = f"tokens {'|'.join(parts)}, stops {stops}: (sent, stopped) after {there}"
            agree(what, (sent, stream.stopped), (text, stopped))
    sent += stream.finish() + stream.finish()
    text, stopped = wanted(there, stops, True)
    if (sent, stream.stopped) != (text, stopped):
        what = f"tokens {'|'.join(parts)}, stops {stops}: (sent, stopped) after finish, twice"
        agree(what, (sent, stream.stopped), (text, stopped))


def check_odd_stops() -> None:
    """Stops of one text, inside a character's bytes, of the mark, across control; refusals."""
    tokenizer = small(())
    number = tokenizer.library.token_to_id
    eye = [number(letter) for letter in "ðŁĻĤ"]  # the bytes of one emoji
    end, a, b = number("<end>"), number("a"), number("b")
    for what, ids, stop, text, stopped in (
        ("one text, not its letters", [b, a, b], "ab", "b", True),
        ("an emoji", [a, *eye, b], ["🙂"], "a", True),
        ("half of an emoji at the end", [a, *eye[:3]], ["🙂"], "a\ufffd", False),
        ("the mark of a broken character", [a, eye[1], b], [MARK], "a", True),
        ("the mark, in the end", [a, *eye[:2]], [MARK], "a", True),
        ("across a control token", [a, end, b, a], ["ab"], "", True),
        ("a letter across a control token", [*eye[:2], end, *eye[2:]], ["b"], "🙂", False),
        ("the name of a control token", [a, end, b], ["<end>"], "ab", False),
        ("more tokens after the stop", [a, b, b, a], ["b"], "a", True),
        ("a stop that begins twice", [a, a, a, b], ["aab"], "a", True),
        ("nothing", [], ["a"], "", False),
    ):
        pieces, stream = streamed(what, tokenizer, ids, stop)
        agree(f"{what}: text, stopped", ("".join(pieces), stream.stopped), (text, stopped))
        if stopped:
            agree(f"{what}: push after the stop", stream.push(a), "")
    tokenizer.library.add_tokens(["é世"])  # of its letters one could be a byte
    pieces, _ = streamed("an added token", tokenizer, [a, number("é世"), b])
    agree("an added token of two scripts, sent", pieces, ["a", "é世", "b", ""])
    one, other = Detokenizer(tokenizer), Detokenizer(tokenizer)
    turns = [one.push(i) + other.push(i) for i in eye]
    agree("sent by two streams of one tokenizer, in turns", turns, ["", "", "", "🙂🙂"])
    given = ["ab"]
    stream = Detokenizer(tokenizer, given)
    given.append("b")
    agree("sent when the caller's list has grown", stream.push(b), "b")
    for stop in ([""], "", ["a", ""], [3], [None], ["half \ud83d"]):
        must_raise(ValueError, f"stop {stop!r}", Detokenizer, tokenizer, stop)
    for i in (-1, True, "a", 1.5, None):
        must_raise(ValueError, f"push({i!r})", Detokenizer(tokenizer).push, i)
    for i in (10**6, 2**40):
        agree("an id that is no token", attempt("push", Detokenizer(tokenizer).push, i), "")
