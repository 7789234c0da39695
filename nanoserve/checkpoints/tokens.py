"""A checkpoint's tokenizer as its files have it: tokenizer.json and what stands beside it."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.checkpoints.strictjson import json_file, printable

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def needed(name: str) -> ModuleType:
    """An optional package. ImportError says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        how = f"the Python package {package} is missing: pip install 'nanoserve[text]'"
        raise ImportError(how, name=package) from error


def read_tokenizer(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The library's tokenizer, which neither pads nor cuts, and the settings.

    Whether texts begin with bos is tokenizer.json's to say, as in transformers: "add_bos_token" in
    the settings says nothing. CheckpointError names a file that cannot be read.
    """
    library, file = needed("tokenizers"), folder / "tokenizer.json"
    if not file.is_file():
        why = "text cannot be made into its tokens"
        raise CheckpointError(f"{folder} has no tokenizer.json: {why}")
    try:
        tokenizer = library.Tokenizer.from_file(str(file))
    except Exception as error:  # the library has no class for it
        why = printable(str(error))
        raise CheckpointError(f"{file} is no tokenizer that can be read: {why}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    settings = read_settings(folder)
    tokenizer.add_special_tokens([*named_tokens(settings).values()])  # most are there already
    return tokenizer, settings


def read_settings(folder: Path) -> dict[str, Any]:
    """What tokenizer_config.json says; "chat_template" is one text, or None.

    The file chat_template.jinja goes before it, and of several named templates the default.
    """
    file, beside = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    try:
        settings = json_file(file) if file.is_file() else {}
        template = settings.get("chat_template")
        if isinstance(template, list):
            template = {each["name"]: each["template"] for each in template}.get("default")
        if beside.is_file():
            file = beside
            template = beside.read_text("utf-8")
        if not isinstance(template, str | None):
            raise ValueError(f"chat_template must be a text: {template!r:.60}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} cannot be read: {printable(str(error))}") from error
    return settings | {"chat_template": template}


def named_tokens(settings: dict[str, Any]) -> dict[str, str]:
    """The tokens that templates know as bos_token, eos_token and so on."""
    found = {}
    for name in NAMES:
        token = settings.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token:
            found[name] = token
    return found
