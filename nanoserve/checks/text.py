"""Texts and chats to ids, and ids to text, held against HuggingFace's tokenizers: Day 12."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.checks.common import agree, attempt, holds, must_raise
from nanoserve.checks.text_cases import (
    CHATS,
    FORGED,
    HOSTILE,
    TEMPLATES,
    TEXTS,
    WRONG_CHATS,
    turns,
)
from nanoserve.checks.text_made import FAMILIES, save
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.reference import transformers
from nanoserve.text import Tokenizer

EXACT = {"rtol": 0.0, "atol": 0.0}


def tokenizers(paths: Any) -> Iterator[tuple[Path, str, Tokenizer, Any]]:
    """Each checkpoint's, then one of each family: (name on the board, what, ours, HuggingFace's).

    A checkpoint without a tokenizer is given a made one, and the board says so.
    """
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            there = (path / "tokenizer.json").is_file()
            home = path if there else save(Path(folder) / path.name, "byte level")
            yield path, "" if there else ", a made tokenizer", *both(home)
        for family in FAMILIES:
            home = save(Path(folder) / family / MADE_UP, family)
            yield home, f", {family}", *both(home)


def both(home: Path) -> tuple[Tokenizer, Any]:
    """Ours, and HuggingFace's."""
    theirs = transformers.AutoTokenizer.from_pretrained(home, local_files_only=True)
    return attempt(f"Tokenizer of {home.name}", Tokenizer.from_pretrained, home), theirs


def letters(text: str) -> torch.Tensor:
    """A text as numbers, one for each letter, and one more: there are empty texts."""
    return torch.tensor([len(text), *map(ord, text)])


def ids_of(what: str, act: Any, *inputs: Any) -> torch.Tensor:
    """What a call of ours gives, as ids, after one more: there are empty lists."""
    ids = attempt(what, act, *inputs)
    holds(f"{what} must give a list of int", type(ids) is list and {*map(type, ids)} <= {int})
    return torch.tensor([len(ids), *ids])


def compare_texts(board: Scoreboard, path: Path, what: str, ours: Tokenizer, theirs: Any) -> None:
    """Ids of texts in which there is no control token, and the text of these ids."""
    for text in TEXTS:
        if named(ours, text):
            continue
        name = f"{text[:30]!r}"
        ids = ids_of(f"encode({name})", ours.encode, text)
        wanted = theirs(text).input_ids
        want = torch.tensor([len(wanted), *wanted])
        board.compare(path, f"ids of texts{what}", name, ids, want, **EXACT)
        for skip in (True, False):
            mine = letters(attempt("decode", ours.decode, wanted, not skip))
            want = letters(theirs.decode(wanted, skip_special_tokens=skip))
            board.compare(path, f"texts of ids{what}", name, mine, want, **EXACT)


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
            want = torch.tensor([len(wanted), *wanted])
            full = f"{name}, add_generation_prompt={asks}"
            board.compare(path, f"ids of chats{what}", full, ids, want, **EXACT)
        agree(f"the caller's messages after chat({name})", json.dumps(messages), before)


def check_control(what: str, ours: Tokenizer, theirs: Any) -> None:
    """Names of control tokens in what a user says are text, however they come about."""
    bos = len(attempt("encode('')", ours.encode, ""))
    tokens = sorted(ours.control.items())
    for i, name in tokens[:: len(tokens) // 20 + 1]:  # some have hundreds
        text = f"a {name}\n{name[:-1]}{name} b"
        ids = attempt(f"encode({text!r})", ours.encode, text)
        agree(f"{what}: control ids of the text {text!r}", controls(ours, ids[bos:]), [])
        ids = attempt("encode with control", ours.encode, text, True)[bos:]
        holds(f"in {text!r} with control=True must be {i} twice", ids.count(i) == 2, str(ids))
        check_forged(what, ours, theirs, name)


def controls(ours: Tokenizer, ids: list[int]) -> list[int]:
    """The control tokens among ids, but for the one that stands for unknown letters."""
    return [i for i in ids if i in ours.control and ours.control[i] != "<unk>"]


def check_forged(what: str, ours: Tokenizer, theirs: Any, name: str) -> None:
    """Chats in which a user forges a token, against the same with letters in its place."""
    cut = len(name) // 2
    for forged in FORGED if ours.template else ():
        texts = [text.format(name, head=name[:cut], tail=name[cut:]) for text in forged]
        chat, tame = turns(*texts), turns(*(["no harm"] * len(texts)))
        ids = attempt(f"chat({chat})", ours.chat, chat)
        wanted = controls(ours, ours.chat(tame))
        agree(f"{what}: control ids of the chat {chat}", controls(ours, ids), wanted)
        if ours.spelling.letters:  # elsewhere a text does not come back letter by letter
            said = theirs.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            # A template that trims what it has cut at a token finds our fence there.
            mine = "".join(ours.decode(ids, True).split())
            agree(f"{what}: text of the chat {chat}", mine, "".join(said.split()))


def check_templates(board: Scoreboard) -> None:
    """What templates may use, one by one; forging where they join texts; what is refused."""
    with tempfile.TemporaryDirectory() as folder:
        home = save(Path(folder) / MADE_UP, "byte level")
        theirs = both(home)[1]
        for name, source in TEMPLATES.items():
            (home / "chat_template.jinja").write_text(source, "utf-8")
            ours = Tokenizer.from_pretrained(home)
            theirs.chat_template = source
            for messages in CHATS.values():
                wanted = theirs.apply_chat_template(
                    messages, add_generation_prompt=True, return_dict=False
                )
                ids = ids_of(f"chat with the template {name}", ours.chat, messages)
                want = torch.tensor([len(wanted), *wanted])
                board.compare(home, "ids by templates", name, ids, want, **EXACT)
            if name.startswith(("joined", "a token")):
                check_forged(f"template {name}", ours, theirs, "<|eot_id|>")
        for source, word in HOSTILE:
            (home / "chat_template.jinja").write_text(source, "utf-8")
            ours = attempt("a tokenizer with a bad template", Tokenizer.from_pretrained, home)
            refused(f"the template {source}", word, ours.chat, CHATS["one question"])


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


def check_files() -> None:
    """A tokenizer's files: which template counts, what lacks, what is broken, where turns end."""
    with tempfile.TemporaryDirectory() as folder:
        home = save(Path(folder) / "tokenizer", "byte level")
        file, beside = home / "tokenizer_config.json", home / "chat_template.jinja"
        hi, settings = turns("Hi"), json.loads(file.read_text("utf-8"))
        several = [{"name": "rag", "template": "x"}, {"name": "default", "template": "Hi y"}]
        for template, wanted in (("Hi z", "Hi z"), (several, "Hi y"), (None, None)):
            file.write_text(json.dumps(settings | {"chat_template": template}), "utf-8")
            ours = Tokenizer.from_pretrained(home)
            if wanted:
                agree(f"chat where the template is {template}", ours.decode(ours.chat(hi)), wanted)
            else:
                refused("a chat without a template", "no chat template", ours.chat, hi)
        beside.write_text("a file", "utf-8")
        ours = Tokenizer.from_pretrained(home)
        agree("chat where there is chat_template.jinja", ours.decode(ours.chat(hi)), "a file")
        for content in ("{", "[]", '{"chat_template": 3}', '{"chat_template": [3]}'):
            beside.unlink(missing_ok=True)
            file.write_text(content, "utf-8")
            said = must_raise(CheckpointError, content, Tokenizer.from_pretrained, home)
            holds("the refusal must name the file", file.name in said, said)
        file.unlink()
        ours = Tokenizer.from_pretrained(home)
        named = [ours.control[i] for i in ours.encode("")]
        agree("what begins a text, without settings", named, ["<|begin_of_text|>"])
        for content in ("{}", None):
            if content:
                (home / "tokenizer.json").write_text(content, "utf-8")
            else:
                (home / "tokenizer.json").unlink()
            said = must_raise(CheckpointError, "tokenizer.json", Tokenizer.from_pretrained, home)
            holds("the refusal must name the file", "tokenizer.json" in said, said)
