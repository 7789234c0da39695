"""Text streamed from ids: whole characters, once each, as soon as they are whole: Day 12."""

import random
import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.text import exactly, told
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
        name = told(path, f"ids {ids[:6]}")
        pieces, _ = streamed(name, ours, ids)
        whole = theirs.decode(ids, skip_special_tokens=True)
        exactly(board, path, f"streamed text{what}", name, "".join(pieces), whole)
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
    if ours.spelling.hex:  # bytes as tokens, with the space first that may be nothing there
        yield [ours.library.token_to_id(f"<0x{byte:02X}>") for byte in b" a b"]
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
            data = b"".join(map(ours.spelling.bytes_of, run))
            good = data.decode("utf-8", "ignore").encode()
            kept += run if good in (b"", data) else run[:1]
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
