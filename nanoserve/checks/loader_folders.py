"""Indexes and folders that lie, which the loader must refuse: Day 3."""

import json
from pathlib import Path

from nanoserve.checks.common import agree
from nanoserve.checks.made import NORM
from nanoserve.checks.refused import refusal, refused
from nanoserve.loader import read_index

INDEX = "model.safetensors.index.json"


def check_folders(path: Path) -> None:
    """A checkpoint in shards: its index spoilt, its files gone; a pickle; no folder at all."""
    check_malformed(path)
    check_lies(path)
    check_outside(path)
    check_gone(path)
    told = refusal("a missing folder", read_index, path.parent / "nowhere")
    agree(f"a missing folder is named in {told}", "nowhere" in told, True)


def spoilt_index(what: str, path: Path, content: str, *words: str) -> None:
    """Refused with this text as its index; then the index is as it was."""
    text = (path / INDEX).read_text("utf-8")
    (path / INDEX).write_text(content, "utf-8")
    refused(what, path, *words)
    (path / INDEX).write_text(text, "utf-8")


def weight_map(path: Path) -> dict[str, str]:
    """The file of each tensor, as the index has it."""
    return json.loads((path / INDEX).read_text("utf-8"))["weight_map"]


def mapping(names: dict[str, str]) -> str:
    """The text of an index."""
    return json.dumps({"weight_map": names})


def check_malformed(path: Path) -> None:
    """No JSON, or JSON of another form."""
    cut = (path / INDEX).read_text("utf-8")[:-9]
    spoilt_index("an index of no JSON", path, cut, INDEX)
    spoilt_index("an index of a list", path, "[]", INDEX)
    spoilt_index("an index without a map", path, "{}", "weight_map")
    spoilt_index("an index of numbers", path, '{"weight_map": {"a": 1}}', "weight_map")
    twice = '{"weight_map": {}, "weight_map": {}}'
    spoilt_index("an index with a key twice", path, twice, "twice")


def check_lies(path: Path) -> None:
    """An index that says of the shards what they do not hold."""
    where = weight_map(path)
    other = min(set(where.values()) - {where[NORM]})
    ghost = mapping(where | {"ghost": other})
    spoilt_index("an index that adds", path, ghost, "ghost")
    fewer = mapping({name: file for name, file in where.items() if name != NORM})
    spoilt_index("an index that forgets", path, fewer, NORM)
    moved = mapping(where | {NORM: other})
    spoilt_index("the wrong shard", path, moved, NORM)
    absent = mapping(where | {"a": "a.st", "b": "b.st"})
    spoilt_index("two files that are not there", path, absent, "a.st", "b.st")


def check_outside(path: Path) -> None:
    """A shard that is there, but not in the checkpoint's folder."""
    where = weight_map(path)
    shard = min(where.values())
    (path.parent / shard).write_bytes((path / shard).read_bytes())
    outside = {name: f"../{file}" for name, file in where.items() if file == shard}
    spoilt_index("a file outside the folder", path, mapping(where | outside), "../")


def check_gone(path: Path) -> None:
    """The first shard gone, the last, the index, all but a pickle."""
    shards = set(weight_map(path).values())
    for shard in (min(shards), max(shards)):
        moved = (path / shard).rename(path / "moved")
        refused("a shard that is gone", path, shard)
        moved.rename(path / shard)
    (path / INDEX).unlink()
    refused("no index", path, "no model.safetensors")
    (path / "pytorch_model.bin").write_bytes(b"")
    refused("a pickle", path, "pytorch_model.bin", "pickle")
