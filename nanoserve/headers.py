"""The header of a safetensors file, read without trusting it.

A file is 8 bytes of header length (little-endian), that much JSON, then the data. The format is
described at https://huggingface.co/docs/safetensors. Day 2 reads one by hand; this is the same
with every check that a damaged or hostile file needs.
"""

import json
import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded, with everything that is wrong with it."""


MAX_HEADER = 10_000_000  # bytes; the header of a 405B Llama has a fiftieth of that
ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
}


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of a tensor. Its bytes are `start` to `end` of the file."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int


def fail_on(problems: list[str], where: Path) -> None:
    """Raise CheckpointError with all the problems, 20 lines at most; do nothing if none."""
    if len(problems) > 19:
        problems = [*problems[:18], f"and {len(problems) - 18} more"]
    if problems:
        raise CheckpointError("\n  ".join([f"{where} cannot be loaded:", *problems]))


def read_json(data: bytes) -> dict:
    """Parse a JSON object. Raises ValueError, also where a key stands twice."""

    def once(pairs):
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        if twice:
            raise ValueError(f"the key {twice[0]!r:.80} is there twice")
        return dict(pairs)

    try:
        values = json.loads(data, object_pairs_hook=once)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(values, dict):
        raise ValueError(f"an object is wanted, found {values!r:.60}")
    return values


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Every tensor of a safetensors file: 8 bytes of length, that much JSON, then the data.

    Raises CheckpointError where the file cannot be read or contradicts itself.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as f:
            length = int.from_bytes(f.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise ValueError(
                    f"{size} bytes cannot have a header of {length}: cut short, or no safetensors"
                )
            header = read_json(f.read(length))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{file}, in its header: {error}; download it again") from error
    header.pop("__metadata__", None)
    problems, tensors, base = [], {}, 8 + length
    for name, entry in header.items():
        problem = wrong_entry(entry, size - base)
        if problem:
            problems.append(f"{name[:80]}: {problem}")
        else:
            start, end = (base + offset for offset in entry["data_offsets"])
            tensors[name] = TensorInfo(entry["dtype"], tuple(entry["shape"]), file, start, end)
    in_order = sorted(tensors, key=lambda name: (tensors[name].start, tensors[name].end))
    for before, name in pairwise(in_order):
        if tensors[name].start < tensors[before].end:
            problems.append(f"{name}: its bytes overlap those of {before}")
    fail_on(problems, file)
    return tensors


def wrong_entry(entry: Any, data_size: int) -> str | None:
    """What is wrong with one header entry of a file with `data_size` bytes of data."""

    def whole(values, count):
        numbers = isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)
        return numbers and count in (None, len(values))

    if not isinstance(entry, dict) or not whole(entry.get("shape"), None):
        return f"an object with a shape is wanted, found {entry!r:.60}"
    if str(entry.get("dtype")) not in ITEM_BYTES:
        return f"its dtype {entry.get('dtype')!r:.20} is none of {', '.join(ITEM_BYTES)}"
    if not whole(entry.get("data_offsets"), 2):
        return f"data_offsets must be two whole numbers, found {entry.get('data_offsets')!r:.60}"
    start, end = entry["data_offsets"]
    if not start <= end <= data_size:
        return f"bytes {start} to {end} are not within the {data_size} bytes of data"
    needed = math.prod(entry["shape"]) * ITEM_BYTES[entry["dtype"]]
    if end - start != needed:
        return f"{entry['dtype']} {entry['shape']} takes {needed} bytes, it has {end - start}"
    return None


def inside(folder: Path, name: str) -> Path:
    """The file that an index names. Raises CheckpointError if it lies outside the folder.

    The hub's cache keeps a snapshot's files as links into its own blobs folder: that is inside.
    """
    file = (folder / name).resolve()
    home = folder.resolve()
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    if Path(name).name != name or file.parent not in homes:
        raise CheckpointError(f"the index names {name!r:.80}, which is not a file of this folder")
    return file
