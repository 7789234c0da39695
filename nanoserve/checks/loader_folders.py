"""Indexes and folders that lie: which the loader must refuse, and which not. Day 3."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from nanoserve.checks.made import NORM
from nanoserve.checks.refused import accepted, refusal, refused
from nanoserve.loader import read_index

INDEX = "model.safetensors.index.json"


def check_folders(path: Path) -> Iterator[str]:
    """A checkpoint in shards: its index spoilt, its files gone; a pickle; no folder at all."""
    yield from check_malformed(path)
    yield from check_lies(path)
    yield from check_outside(path)
    yield from check_adapter(path)
    yield from check_gone(path)
    yield from refusal("no folder", ("nowhere",), read_index, path.parent / "nowhere")


def with_index(path: Path, content: str, check: Callable, what: str, *words: str) -> list[str]:
    """What `check` finds with this text as the index; then the index is as it was."""
    text = (path / INDEX).read_text("utf-8")
    (path / INDEX).write_text(content, "utf-8")
    found = check(what, path, *words)
    (path / INDEX).write_text(text, "utf-8")
    return found


def weight_map(path: Path) -> dict[str, str]:
    """The file of each tensor, as the index has it."""
    return json.loads((path / INDEX).read_text("utf-8"))["weight_map"]


def mapping(names: dict[str, str]) -> str:
    """The text of an index."""
    return json.dumps({"weight_map": names})


def check_malformed(path: Path) -> Iterator[str]:
    """No JSON, or JSON of another form."""
    cut = (path / INDEX).read_text("utf-8")[:-9]
    for what, text, word in (
        ("an index of no JSON", cut, INDEX),
        ("an index of a list", "[]", INDEX),
        ("an index without a map", "{}", "weight_map"),
        ("an index of numbers", '{"weight_map": {"a": 1}}', "weight_map"),
        ("an index with a key twice", '{"weight_map": {}, "weight_map": {}}', "twice"),
    ):
        yield from with_index(path, text, refused, what, word)


def check_lies(path: Path) -> Iterator[str]:
    """An index that says of the shards what they do not hold: the shards are believed."""
    where = weight_map(path)
    shard = where[NORM]
    other = min(set(where.values()) - {shard})
    for what, names in (
        ("an index with a tensor that no shard has", where | {"ghost": other}),
        ("an index without a tensor of its shards", {n: where[n] for n in where if n != NORM}),
        ("an index with a tensor in the wrong shard", where | {NORM: other}),
    ):
        yield from with_index(path, mapping(names), accepted, what)
    fewer = mapping({name: file for name, file in where.items() if file != shard})
    yield from with_index(path, fewer, refused, "an index without a shard", "missing")
    absent = mapping(where | {"a": "a.st", "b": "b.st"})
    yield from with_index(path, absent, refused, "an index of absent files", "a.st", "b.st")
    (path / "again.st").write_bytes((path / shard).read_bytes())
    twice = mapping(where | {"again": "again.st"})
    yield from with_index(path, twice, refused, "a tensor in two shards", NORM, "another file")


def check_outside(path: Path) -> Iterator[str]:
    """A shard in another folder: the index may not lead there, a link may."""
    where = weight_map(path)
    shard = min(where.values())
    outside = path.parent / shard
    outside.write_bytes((path / shard).read_bytes())
    names = mapping({n: f"../{file}" if file == shard else file for n, file in where.items()})
    yield from with_index(path, names, refused, "an index that leaves the folder", "../")
    (path / shard).rename(path / "moved")
    (path / shard).symlink_to(outside)
    yield from accepted("a shard that is a link", path)
    (path / "moved").replace(path / shard)


def check_adapter(path: Path) -> Iterator[str]:
    """An adapter, which HuggingFace would add to the weights."""
    adapter = path / "adapter_config.json"
    adapter.write_text("{}", "utf-8")
    yield from refused("a folder with an adapter in it", path, adapter.name)
    adapter.unlink()


def check_gone(path: Path) -> Iterator[str]:
    """The first shard gone, the last, the index, all but a pickle."""
    shards = set(weight_map(path).values())
    for shard in (min(shards), max(shards)):
        moved = (path / shard).rename(path / "moved")
        yield from refused("a shard that is gone", path, shard)
        moved.rename(path / shard)
    (path / INDEX).unlink()
    yield from refused("no index and no model.safetensors", path, "no model.safetensors")
    (path / "pytorch_model.bin").write_bytes(b"")
    yield from refused("a pickle and no more", path, "pytorch_model.bin", "pickle")
