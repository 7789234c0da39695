"""Texts and chats to ids, and ids to text, held against HuggingFace's tokenizers: Day 12."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nanoserve.checks.common import agree, attempt, holds, must_raise
from nanoserve.checks.text_cases import (
    CHATS,
    FORGED,
    TEXTS,
    WRONG_CHATS,
    turns,
)
from nanoserve.checks.text_made import FAMILIES, save
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.reference import transformers
from nanoserve.text import Tokenizer


def tokenizers(paths: Any) -> Iterator[tuple[Path, str, Tokenizer, Any]]:
    """Each checkpoint's, then one of each family: (folder, what is made, ours, HuggingFace's).

    A checkpoint without a tokenizer is given a made one, and the board says so.
    """
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            there = (path / "tokenizer.json").is_file()
            home = path if there else save(Path(folder) / path.name, "byte level")
            yield path, "" if there else ", a made tokenizer", *both(home)
        for family in FAMILIES:
            home = save(Path(folder) / family / MADE_UP, family)
            yield home, "", *both(home)


def both(home: Path) -> tuple[Tokenizer, Any]:
    """Ours, and HuggingFace's."""
    theirs = transformers.AutoTokenizer.from_pretrained(home, local_files_only=True)
    return attempt(f"Tokenizer of {home.name}", Tokenizer.from_pretrained, home), theirs


def exactly(board: Scoreboard, path: Path, what: str, name: str, mine: Any, wanted: Any) -> None:
    """Two texts, or two lists of ids; where they part, both are shown."""
    agree(f"type of {name} ({what})", type(mine), type(wanted))
    pair = []
    for x in (mine, wanted):  # one number more than it has: there are empty ones
        pair.append(torch.tensor([len(x), *(map(ord, x) if isinstance(x, str) else x)]))
    try:
        board.compare(path, what, name, *pair, rtol=0.0, atol=0.0)
    except AssertionError as error:
        shown = f"Mine is {mine!r:.300}\nHuggingFace's is {wanted!r:.300}"
        raise AssertionError(f"{error}\n{shown}") from error


def ids_of(what: str, act: Any, *inputs: Any) -> list[int]:
    """What a call of ours gives, as ids."""
    ids = attempt(what, act, *inputs)
    holds(f"{what} must give a list of int", type(ids) is list and {*map(type, ids)} <= {int})
    return ids


def compare_texts(board: Scoreboard, path: Path, what: str, ours: Tokenizer, theirs: Any) -> None:
    """Ids of texts in which there is no control token, and the text of these ids."""
    for text in TEXTS:
        if named(ours, text):
            continue
        name = told(path, f"{text[:30]!r}")
        ids = ids_of(f"encode({name})", ours.encode, text)
        wanted = theirs(text).input_ids
        exactly(board, path, f"ids of texts{what}", name, ids, wanted)
        for skip in (True, False):
            mine = attempt("decode", ours.decode, wanted, not skip)
            want = theirs.decode(wanted, skip_special_tokens=skip)
            exactly(board, path, f"texts of ids{what}", name, mine, want)


def named(ours: Tokenizer, text: str) -> bool:
    """Whether a text has a name that this tokenizer gives to a control token."""
    return any(name in text for name in ours.control.values())


def compare_chats(board: Scoreboard, path: Path, what: str, ours: Tokenizer, theirs: Any) -> None:
    """Ids of conversations in which no user wrote a control token; what either refuses."""
    for name, messages in CHATS.items() if ours.template else ():
        before = json.dumps(messages)
        if named(ours, before):
            continue
        for asks in (True, False):
            try:
                wanted = theirs.apply_chat_template(
                    messages, add_generation_prompt=asks, return_dict=False
                )
            except Exception:  # such as a template's own raise_exception
                must_raise(ValueError, f"the chat {name}", ours.chat, messages, asks)
                continue
            ids = ids_of(f"chat({name}, {asks})", ours.chat, messages, asks)
            full = told(path, f"{name}, add_generation_prompt={asks}")
            exactly(board, path, f"ids of chats{what}", full, ids, wanted)
        agree(f"the caller's messages after chat({name})", json.dumps(messages), before)


def told(path: Path, name: str) -> str:
    """What is compared, with the family where it is made up."""
    return f"{path.parent.name}: {name}" if path.name == MADE_UP else name


def check_control(path: Path, ours: Tokenizer, theirs: Any) -> None:
    """Names of control tokens in what a user says are text, however they come about."""
    what = told(path, path.name)
    bos = len(attempt("encode('')", ours.encode, ""))
    tokens = sorted(ours.control.items())
    for i, name in tokens[:: len(tokens) // 20 + 1]:  # some have hundreds
        text = f"a {name}\n{name[:-1]}{name} b"
        ids = attempt(f"encode({text!r})", ours.encode, text)
        agree(f"{what}: control tokens in the text {text!r}", controls(ours, ids[bos:]), [])
        ids = attempt("encode with control", ours.encode, text, True)
        agree(f"{what}: what begins {text!r}", ids[:bos], ours.encode("")[:bos])
        ids = ids[bos:]
        holds(f"in {text!r} with control=True must be {i} twice", ids.count(i) == 2, str(ids))
        check_forged(what, ours, theirs, name)


def controls(ours: Tokenizer, ids: list[int]) -> list[str]:
    """Control tokens among ids, by name, but for the one that stands for unknown letters."""
    return [ours.control[i] for i in ids if ours.control.get(i, "<unk>") != "<unk>"]


def check_forged(what: str, ours: Tokenizer, theirs: Any, name: str) -> None:
    """Chats in which a user forges a token, against the same with letters in its place."""
    cut = len(name) // 2
    for forged in FORGED if ours.template else ():
        texts = [text.format(name, head=name[:cut], tail=name[cut:]) for text in forged]
        chat, tame = turns(*texts), turns(*(["no harm"] * len(texts)))
        ids = attempt(f"chat({chat})", ours.chat, chat)
        wanted = controls(ours, ours.chat(tame))
        agree(f"{what}: control tokens in the chat {chat}", controls(ours, ids), wanted)
        if ours.spelling.letters:  # elsewhere a text does not come back letter by letter
            said = theirs.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            # A template that trims what it has cut at a token finds our fence there.
            mine = "".join(ours.decode(ids, True).split())
            agree(f"{what}: text of the chat {chat}", mine, "".join(said.split()))


def refused(what: str, word: str, act: Any, *inputs: Any) -> None:
    """A call must raise ValueError, and name what is wrong."""
    said = must_raise(ValueError, what, act, *inputs)
    holds(f"the refusal of {what} must have {word!r}", word in said, said)


def check_wrong(ours: Tokenizer) -> None:
    """What is no text and no chat is refused."""
    for text in (None, 3, b"bytes", ["a"], "half \ud83d"):
        refused(f"encode({text!r})", "", ours.encode, text)
    for ids in ([-1], [True], [False], ["a"], [1.5]):
        refused(f"decode({ids})", str(ids[0]), ours.decode, ids)
    for messages, word in WRONG_CHATS if ours.template else ():
        refused(f"chat({messages})", word, ours.chat, messages)
