"""A checkpoint's files: their headers and index, and rows read by their bytes: Day 2."""

import json
from pathlib import Path

import torch
from safetensors import safe_open

from nanoserve.checkpoints.headers import TensorInfo, read_header
from nanoserve.checks.common import BF16, F16, F32, F64, agree
from nanoserve.config import ModelConfig

DTYPES = {"BF16": BF16, "F16": F16, "F32": F32, "F64": F64}
WHOLE = "model.safetensors"
# Old files hold RoPE's table too, and some a copy of the tied head.
EXTRA = ("rotary_emb.inv_freq", "lm_head.weight")


def check_files(path: Path, config: ModelConfig) -> dict[str, TensorInfo]:
    """The headers' entries: the tensors that the config says, as the library and index have it."""
    headers, shapes, weight_map = {}, config.tensor_shapes(), read_weight_map(path)
    for name in sorted(set(weight_map.values())) or [WHOLE]:
        headers |= read_tensors(path / name, headers)
    for name in sorted(shapes.keys() | headers.keys()):
        info = headers.get(name)
        mine, held = shapes.get(name, "nothing"), info.shape if info else "nothing"
        if mine != held and not (info and mine == "nothing" and name.endswith(EXTRA)):
            raise AssertionError(
                f"{path.name}: for {name}, tensor_shapes() of its config has {mine}, and its "
                f"files have {held}. They should be equal."
            )
        if mine != "nothing" and weight_map.get(name, info.file.name) != info.file.name:
            raise AssertionError(
                f"{path.name}: {name} is in {info.file.name}, and should be in "
                f"{weight_map[name]}, where the index says."
            )
    return headers


def read_weight_map(path: Path) -> dict[str, str]:
    """The index's map from tensor to file. Empty where there is a whole file, which goes first."""
    if (path / WHOLE).exists():
        return {}
    return json.loads((path / f"{WHOLE}.index.json").read_text("utf-8"))["weight_map"]


def read_tensors(file: Path, before: dict[str, TensorInfo]) -> dict[str, TensorInfo]:
    """A file's tensors, none of them there before; names and shapes are the library's."""
    tensors = read_header(file)
    with safe_open(file, "pt") as f:
        theirs = {name: tuple(f.get_slice(name).get_shape()) for name in f.keys()}  # noqa: SIM118
    mine = {name: info.shape for name, info in tensors.items()}
    agree(f"{file.name}, names and shapes of read_header and of the library", mine, theirs)
    agree(f"{file.name}, its tensors that another file has too", before.keys() & tensors, set())
    return tensors


def read_rows(matrix: TensorInfo, ids: torch.Tensor) -> torch.Tensor:
    """A matrix's rows `ids` (B, T), from their bytes in the file: (B, T, C) in float32."""
    dtype, columns = DTYPES[matrix.dtype], matrix.shape[1]
    row_bytes, data = dtype.itemsize * columns, bytearray()
    with matrix.file.open("rb") as f:
        for row in ids.flatten().tolist():
            f.seek(matrix.start + row * row_bytes)
            data += f.read(row_bytes)
    agree(f"{matrix.file.name}, bytes read", len(data), ids.numel() * row_bytes)
    if dtype == BF16:  # the upper half of a float32
        halves = torch.frombuffer(data, dtype=torch.uint16).int()
        values = (halves << 16).view(F32)
    else:
        values = torch.frombuffer(data, dtype=dtype).float()
    return values.view(*ids.shape, columns)
