"""The header of a safetensors file, read without trusting it.

A file is 8 bytes of header length (little-endian), that much JSON, then the data. The format is
described at https://huggingface.co/docs/safetensors. Day 2 reads one by hand; this is the same
with every check that a damaged or hostile file needs, the library's own among them.
"""

import errno
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from nanoserve.checkpoints.strictjson import (
    MAX_JSON,
    json_file,
    open_file,
    printable,
    read_json,
    short,
)


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded, with everything that is wrong with it."""


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
    """What a header says of a tensor.

    `dtype` is spelt as in the file, such as "BF16". Its bytes are `start` to `end` of the file,
    counted from the beginning, `end` not among them.
    """

    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int


def fail_on(problems: list[str], where: Path) -> None:
    """Raise CheckpointError with all the problems, 20 lines at most; do nothing if none."""
    if problems:
        lines = map(printable, [f"{where} cannot be loaded:", *first(problems, 19)])
        raise CheckpointError("\n  ".join(lines))


def first(lines: list[str], count: int) -> list[str]:
    """At most `count` lines; the last says how many more there are, where there are."""
    if len(lines) <= count:
        return lines
    return [*lines[: count - 1], f"and {len(lines) - count + 1} more"]


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Every tensor of a safetensors file: 8 bytes of length, that much JSON, then the data.

    Raises CheckpointError where the file cannot be read or contradicts itself.
    """
    try:
        with open_file(file) as f:
            size = os.fstat(f.fileno()).st_size
            length = int.from_bytes(f.read(8), "little")
            if not 2 <= length <= size - 8:
                raise ValueError(
                    f"{size} bytes cannot have a header of {length}: cut short, or no safetensors"
                )
            if length > MAX_JSON:  # whole, it may be: another copy would not help
                text = f"it has a header of {length} bytes, and more than {MAX_JSON} are not read"
                raise OSError(errno.EFBIG, text)
            header = read_json(f.read(length))
    except OSError as error:
        raise CheckpointError(printable(f"{file} cannot be read: {error.strerror}")) from error
    except ValueError as error:
        text = printable(f"{file}, in its header: {error}; download it again")
        raise CheckpointError(text) from error
    header.pop("__metadata__", None)
    problems, tensors, base = [], {}, 8 + length
    for name, entry in header.items():
        problem = wrong_entry(entry, size - base)
        if problem:
            problems.append(f"{name}: {problem}")
        else:
            start, end = (base + offset for offset in entry["data_offsets"])
            tensors[name] = TensorInfo(entry["dtype"], tuple(entry["shape"]), file, start, end)
    fail_on(problems, file)
    try:  # the library looks for gaps and overlaps
        with safe_open(file, "pt"):
            return tensors
    except (OSError, SafetensorError) as error:
        raise CheckpointError(printable(f"{file} cannot be loaded: {error}")) from error


def wrong_entry(entry: Any, data_size: int) -> str | None:
    """What is wrong with one header entry of a file with `data_size` bytes of data."""

    def whole(values):
        return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)

    if not isinstance(entry, dict) or not whole(entry.get("shape")) or len(entry["shape"]) > 8:
        return f"an object with a shape is wanted, found {short(entry)}"
    dtype, offsets = entry.get("dtype"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        return f"its dtype {short(dtype)} is none of {', '.join(ITEM_BYTES)}"
    if not whole(offsets) or len(offsets) != 2:
        return f"data_offsets must be two whole numbers, found {short(offsets)}"
    start, end = offsets
    if not start <= end <= data_size:
        return f"bytes {start} to {end} are not within the {data_size} bytes of data"
    needed = math.prod(entry["shape"]) * ITEM_BYTES[dtype]
    if end - start != needed:
        return f"{dtype} {entry['shape']} takes {needed} bytes, it has {end - start}"
    return None


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's tensors. CheckpointError where that cannot be told.

    As HuggingFace has it: model.safetensors if it is there, else the shards that the index names.
    A shard may be a link to anywhere, that is its owner's choice; the index may not leave the
    folder.
    """
    if os.path.lexists(folder / "adapter_config.json"):
        raise CheckpointError(
            f"{folder} holds an adapter (adapter_config.json), which HuggingFace adds to the "
            "weights and nanoserve does not: merge it into them, or move it out of the folder"
        )
    if os.path.lexists(folder / "model.safetensors"):
        return [folder / "model.safetensors"]
    names = sorted(set(read_weight_map(folder).values()))
    bad = [n for n in names if n in ("", "..") or Path(n).name != n or not n.isprintable()]
    fail_on([f"the index names {n!r:.80}, which is not a file of this folder" for n in bad], folder)
    return [folder / name for name in names]


def read_weight_map(folder: Path) -> dict[str, str]:
    """The map of a sharded checkpoint's index, from tensor to file. Else CheckpointError."""
    index = folder / "model.safetensors.index.json"
    try:
        where = json_file(index).get("weight_map")
    except OSError as error:
        raise CheckpointError(no_weights(folder, error)) from error
    except ValueError as error:
        raise CheckpointError(f"{index} cannot be read: {error}") from error
    files = where.values() if isinstance(where, dict) else [None]
    if not all(isinstance(file, str) for file in files):
        raise CheckpointError(f"{index}: weight_map must map tensors to file names")
    return where


def no_weights(folder: Path, error: OSError) -> str:
    """Why there is no index to read, and what to do."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"{error.filename} cannot be read: {error.strerror}"
    if not folder.is_dir():
        return f"{folder} is not a folder, as a checkpoint is"
    found = pickles(folder)
    also = f"; {found[0]!r} is a pickle, which can run code: never opened" if found else ""
    return (
        f"{folder} has no model.safetensors and no index{also}: "
        "get the checkpoint's safetensors files"
    )


def pickles(folder: Path) -> list[str]:
    """The files of a folder that are pickles by their names; none where it cannot be listed."""
    try:
        return sorted(f.name for f in folder.iterdir() if f.suffix in (".bin", ".pth", ".pt"))
    except OSError:
        return []
