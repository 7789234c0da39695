"""A checkpoint's files: their headers and index, and rows read by their bytes: Day 2."""

import json
from pathlib import Path

import torch
from safetensors import safe_open

from nanoserve.checkpoints.headers import TensorInfo, read_header
from nanoserve.checks.common import BF16, F16, F32, F64, agree
from nanoserve.config import ModelConfig

DTYPES = {"BF16": BF16, "F16": F16, "F32": F32, "F64": F64}
# Old files hold RoPE's table too, and some a copy of the tied head.
EXTRA = ("rotary_emb.inv_freq", "lm_head.weight")


def check_files(path: Path, config: ModelConfig) -> dict[str, TensorInfo]:
    """The headers' entries: the tensors that the config says, as the library and index have it."""
    headers = read_headers(path)
    shapes = config.tensor_shapes()
    held = {
        name: info.shape
        for name, info in headers.items()
        if name in shapes or not name.endswith(EXTRA)
    }
    agree(f"{path.name}, the config's tensors against the files'", shapes, held)
    index = path / "model.safetensors.index.json"
    if index.exists():
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        files = {name: info.file.name for name, info in headers.items()}
        agree(f"{path.name}, the index", files, weight_map)
    return headers


def read_headers(path: Path) -> dict[str, TensorInfo]:
    """Every tensor of every file, none in two; names and shapes are the library's."""
    headers = {}
    for file in sorted(path.glob("model*.safetensors")):
        tensors = read_header(file)
        agree(f"{file.name}, tensors in two files", sorted(headers.keys() & tensors), [])
        with safe_open(file, "pt") as f:
            names = f.keys()
            theirs = {name: tuple(f.get_slice(name).get_shape()) for name in names}
        mine = {name: info.shape for name, info in tensors.items()}
        agree(f"{file.name}, against the library", mine, theirs)
        headers |= tensors
    return headers


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
