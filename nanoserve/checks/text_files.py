"""A tokenizer's files, read as they should be or refused by name: Day 12."""

import json
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Library
from tokenizers import models

from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.checks.common import agree, attempt, holds, must_raise
from nanoserve.checks.text import ids_of, refused
from nanoserve.checks.text_cases import turns
from nanoserve.checks.text_made import save
from nanoserve.text import Tokenizer


def check_files() -> None:
    """A tokenizer's files: which template counts, what lacks, what is broken, where turns end."""
    with tempfile.TemporaryDirectory() as folder:
        for family, (names, end) in KNOWN.items():
            home = save(Path(folder) / family, family)
            ours = attempt(f"Tokenizer of {family}", Tokenizer.from_pretrained, home)
            agree(f"{family}: control tokens", set(ours.control.values()), set(names.split()))
            ends = [ours.control[i] for i in attempt("turn_ends", ours.turn_ends)]
            agree(f"{family}: ends of answers", ends, [end])
            again = Tokenizer.from_pretrained(home).prefix
            new = len(again) >= 16 and again != ours.prefix
            holds("a tokenizer's prefix must be one that nobody can guess", new, again)
        home = save(Path(folder) / "tokenizer", "byte level")
        check_settings(home)
        check_unknown()
        check_broken(home)


KNOWN = {
    "byte level": (
        "<|begin_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <think> </think>",
        "<|eot_id|>",
    ),
    "pieces and bytes": ("<unk> <s> </s>", "</s>"),
    "pieces": ("<unk> <|user|> <|assistant|> <|system|> <|end|>", "<|end|>"),
}


def check_settings(home: Path) -> None:
    """Templates in every place, tokens with options, and files that pad and cut."""
    file, beside = home / "tokenizer_config.json", home / "chat_template.jinja"
    hi, settings = turns("Hi"), json.loads(file.read_text("utf-8"))

    def chat(what: str, wanted: str, **changes: Any) -> None:
        file.write_text(json.dumps(settings | changes), "utf-8")
        ours = attempt(f"Tokenizer, {what}", Tokenizer.from_pretrained, home)
        text = ours.decode(attempt(f"chat, {what}", ours.chat, hi), True)
        agree(f"chat, {what}", text, wanted)

    several = [{"name": "rag", "template": "x"}, {"name": "default", "template": "Hi y"}]
    chat("one template", "Hi z", chat_template="Hi z")
    chat("several templates", "Hi y", chat_template=several)
    bos = {"bos_token": {"content": "<|begin_of_text|>", "lstrip": False}}
    chat("a token with options", "<|begin_of_text|>", chat_template="{{ bos_token }}", **bos)
    beside.write_text("a file", "utf-8")
    chat("chat_template.jinja", "a file")
    beside.unlink()
    file.write_text(json.dumps(settings | {"chat_template": None}), "utf-8")
    ours = Tokenizer.from_pretrained(home)
    refused("a chat without a template", "no chat template", ours.chat, hi)
    agree("ends of answers without a template", ours.turn_ends(), ())
    ours.template = "{{ messages[-1].content }} end.<|eot_id|>"
    agree("ends of answers with words before the token", ours.turn_ends(), ())
    ids = ids_of("encode", ours.encode, "some words and more")
    for change in ({"length": 40}, {"length": 40, "pad_id": 3}):
        ours.library.enable_padding(**change)
        ours.library.enable_truncation(2)
        ours.library.save(str(home / "tokenizer.json"))
        again = Tokenizer.from_pretrained(home)
        agree("ids where the file pads and cuts", again.encode("some words and more"), ids)


def check_unknown() -> None:
    """A letter that no token has becomes the token for it, by its id, names or none."""
    library = Library(models.BPE({"<unk>": 0, "a": 1}, [], unk_token="<unk>"))
    library.add_special_tokens(["<unk>"])
    ours = attempt("Tokenizer with an unk_token", Tokenizer, library, {})
    for control in (False, True):
        ids = ids_of(f"encode('ab', {control}) where no token has a b", ours.encode, "ab", control)
        agree(f"ids of 'ab' where no token has a b, control={control}", ids, [1, 0])


def check_broken(home: Path) -> None:
    """Files that cannot be read, and none."""
    file, vocabulary = home / "tokenizer_config.json", home / "tokenizer.json"
    for content in ("{", "[]", '{"chat_template": 3}', '{"chat_template": [3]}'):
        file.write_text(content, "utf-8")
        said = must_raise(CheckpointError, content, Tokenizer.from_pretrained, home)
        holds("the refusal must name the file", file.name in said, said)
    file.unlink()
    ours = attempt("a tokenizer without settings", Tokenizer.from_pretrained, home)
    named = [ours.control[i] for i in ours.encode("")]
    agree("what begins a text, without settings", named, ["<|begin_of_text|>"])
    vocabulary.write_text("{}", "utf-8")
    for _ in range(2):  # broken, then missing
        said = must_raise(CheckpointError, "tokenizer.json", Tokenizer.from_pretrained, home)
        holds("the refusal must name the file", "tokenizer.json" in said, said)
        vocabulary.unlink(missing_ok=True)
