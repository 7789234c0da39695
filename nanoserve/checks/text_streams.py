"""Text streamed from ids: whole characters, once each, and no stop text that leaks: Day 12."""

import random
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers

from nanoserve.checks.common import agree, attempt, holds, must_raise
from nanoserve.checks.text import EXACT, letters
from nanoserve.checks.text_cases import TEXTS
from nanoserve.comparison import Scoreboard
from nanoserve.text import Detokenizer, Tokenizer

MARK = "\ufffd"


def streamed(what: str, tokenizer: Any, ids: Sequence[int], stop: Any = ()) -> tuple[list, Any]:
    """The pieces that ids give, one each and one at the end; and the detokenizer."""
    stream = attempt(f"Detokenizer with stop {stop!r}", Detokenizer, tokenizer, stop)
    pieces = [attempt(f"push in {what}", stream.push, i) for i in ids]
    pieces.append(attempt(f"finish in {what}", stream.finish))
    agree(f"{what}: types of pieces", {*map(type, pieces)}, {str})
    agree(f"{what}: push and finish after the end", stream.finish(), "")
    return pieces, stream


def compare_streams(
    board: Scoreboard, path: Path, what: str, ours: Tokenizer, theirs: Any, times: int = 40
) -> None:
    """Ids of texts, and random ones: joined pieces are the whole, and none comes late."""
    for n, ids in enumerate(sequences(ours, theirs, times)):
        name = f"ids {ids[:6]}"
        pieces, _ = streamed(name, ours, ids)
        whole = letters(theirs.decode(ids, skip_special_tokens=True))
        board.compare(path, f"streamed text{what}", name, letters("".join(pieces)), whole, **EXACT)
        agree(f"decode of {name}", ours.decode(ids), "".join(pieces))
        if n % 4 == 0:
            # Of a run of byte tokens, transformers takes back characters while one is broken.
            check_prompt(name, ours if ours.spelling.hex else theirs, ids, pieces)


def check_prompt(name: str, judge: Any, ids: Sequence[int], pieces: Sequence[str]) -> None:
    """Whatever is whole has been sent: what lacks is the beginning of one character."""
    sent = ""
    for n, piece in enumerate(pieces[:-1], 1):
        sent += piece
        named = {} if isinstance(judge, Tokenizer) else {"skip_special_tokens": True}
        there = judge.decode(ids[:n], **named)
        late = there.removeprefix(sent) if there.startswith(sent) else "another text"
        must = f"{name}: of {there[-9:]!r} after {n} tokens at most a broken character may lack"
        holds(must, late.strip(MARK) == "" and len(late) <= 3, f"sent is {sent[-9:]!r}")


def sequences(ours: Tokenizer, theirs: Any, times: int) -> Iterator[list[int]]:
    """Ids of texts, of parts of them that begin anywhere, and seeded ones, control tokens too."""
    draw, size = random.Random(0), len(theirs)
    for text in TEXTS:
        ids = ours.encode(text)
        yield ids
        yield sound(ours, ids[draw.randrange(len(ids) + 1) :])
    for _ in range(times):
        ids = [draw.randrange(size + 2) for _ in range(24)]
        ids += [*draw.sample(sorted(ours.control), min(2, len(ours.control))), ids[0]]
        yield sound(ours, ids)


def sound(ours: Tokenizer, ids: list[int]) -> list[int]:
    """Ids of which no run of byte tokens is in part UTF-8 and in part none.

    For transformers, one broken byte breaks all of its run: also what a stream has sent by then.
    """
    kept, run = [], []
    for i in [*ids, None]:
        token = "" if i is None else ours.library.id_to_token(i) or ""
        if ours.spelling.hex and re.fullmatch("<0x..>", token):
            run.append(i)
        elif i is None or (i not in ours.special and token):
            whole = b"".join(map(ours.spelling.bytes_of, run))
            kept += run if MARK not in whole.decode("utf-8", "replace") else run[:1]
            kept, run = kept + [i] * (i is not None), []
        else:
            kept.append(i)
    return kept


def check_bytes(ours: Tokenizer) -> None:
    """Byte by byte: characters of 1 to 4 bytes, cut anywhere, broken, and runs of broken ones."""
    if not ours.spelling.letters:
        return
    table = pre_tokenizers.ByteLevel.alphabet()
    one = {}  # the id of each byte that is a token by itself
    for letter in table:
        i = ours.library.token_to_id(letter)
        if i is not None:
            one[ours.spelling.bytes_of(i)] = i
    good = "aé世🙂\U0010ffff".encode()
    broken = b"\xff", b"\x80", b"\xe4\xb8", b"\xf0\x9f\x99", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5"
    runs = [good, *(bad * n + good for bad in broken for n in (1, 2, 40)), *broken]
    runs += [a + b for a, b in product((*broken, good), repeat=2)]
    for data in runs:
        ids = [one[data[n : n + 1]] for n in range(len(data)) if data[n : n + 1] in one]
        if len(ids) < len(data):
            continue
        pieces, _ = streamed(f"bytes {data[:9]!r}", ours, ids)
        agree(f"text of bytes {data[:9]!r}", "".join(pieces), data.decode("utf-8", "replace"))
        late = most = 0
        for piece in pieces[:-1]:
            late = 0 if piece else late + 1
            most = max(most, late)
        holds(f"of bytes {data[:9]!r} at most 3 may be held", most <= 3, f"{most} were")


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


def wanted(text: str, stops: Collection[str]) -> tuple[str, bool]:
    """Letter by letter: the text until a stop is complete, and whether one was."""
    for n in range(len(text) + 1):
        if done := [stop for stop in stops if text[:n].endswith(stop)]:
            return text[: n - max(map(len, done))], True
    return text, False


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
    check_odd_stops(tokenizer)


def check_stop(tokenizer: Tokenizer, ids: list[int], parts: list[str], stops: Sequence) -> None:
    """One stream: what is sent, when, and where it stops."""
    stream, sent, there = Detokenizer(tokenizer, stops), "", ""
    for i, part in zip(ids, parts, strict=True):
        sent += stream.push(i)
        there += part
        text, stopped = wanted(there, stops)
        if not stopped:  # what may yet become a stop is held, and no more
            held = [n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
            text = text[: len(text) - max(held, default=0)]
        if (sent, stream.stopped) != (text, stopped):
            what = f"sent of {'|'.join(parts)}, at {there}, stops {stops}; stopped"
            agree(what, (sent, stream.stopped), (text, stopped))
    sent += stream.finish()
    text, stopped = wanted(there, stops)
    if (sent, stream.stopped) != (text, stopped):
        what = f"sent of {'|'.join(parts)} in the end, stops {stops}; stopped"
        agree(what, (sent, stream.stopped), (text, stopped))


def check_odd_stops(tokenizer: Tokenizer) -> None:
    """Stops of one text, inside a character's bytes, of the mark, across control; refusals."""
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
        ("the name of a control token", [a, end, b], ["<end>"], "ab", False),
        ("more tokens after the stop", [a, b, b, a], ["b"], "a", True),
        ("a stop that begins twice", [a, a, a, b], ["aab"], "a", True),
        ("nothing", [], ["a"], "", False),
    ):
        pieces, stream = streamed(what, tokenizer, ids, stop)
        agree(f"{what}: text, stopped", ("".join(pieces), stream.stopped), (text, stopped))
        if stopped:
            agree(f"{what}: push after the stop", stream.push(a), "")
    given = ["ab"]
    stream = Detokenizer(tokenizer, given)
    given.append("b")
    agree("sent when the caller's list has grown", stream.push(b), "b")
    for stop in ([""], "", ["a", ""], [3], [None], ["half \ud83d"]):
        must_raise(ValueError, f"stop {stop!r}", Detokenizer, tokenizer, stop)
    for i in (-1, True, "a", 1.5, None):
        must_raise(ValueError, f"push({i!r})", Detokenizer(tokenizer).push, i)
    agree("an id that is no token", Detokenizer(tokenizer).push(10**6), "")
