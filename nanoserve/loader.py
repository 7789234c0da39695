"""From a checkpoint's files to a model's parameters.

Built in the book: day03. Edit there, then run book/tangle.py.
"""

import os
import warnings
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from nanoserve.checkpoints.headers import (
    CheckpointError,
    TensorInfo,
    fail_on,
    inside,
    read_header,
    read_weight_map,
)
from nanoserve.config import ModelConfig
from nanoserve.pages import HugePages


def read_index(path: str | PathLike) -> dict[str, TensorInfo]:
    """Every tensor of the checkpoint in folder `path`, by its name.

    Only headers are read: that of model.safetensors, or those of the
    shards in an index. CheckpointError tells all that is wrong.
    """
    folder = Path(path)
    if os.path.lexists(folder / "model.safetensors"):
        return read_header(folder / "model.safetensors")
    shards, tensors, problems = {}, {}, []
    for name, shard in read_weight_map(folder).items():
        shards.setdefault(shard, set()).add(name)
    for shard, named in sorted(shards.items()):
        try:
            found = read_header(inside(folder, shard))
        except CheckpointError as error:
            problems += str(error).splitlines()
            continue
        problems += [
            f"{n}: not in {shard}, where the index says" for n in sorted(named - found.keys())
        ]
        problems += [
            f"{n}: in {shard}, but not so in the index" for n in sorted(found.keys() - named)
        ]
        tensors |= found
    fail_on(problems, folder)
    return tensors


def key_map(config: ModelConfig) -> dict[str, str | tuple[str, ...]]:
    """Our name of each parameter -> the file's name of its tensor.

    A tuple of names means tensors stacked along dimension 0, as in a
    fused layer.
    """
    layer = {
        "attn_norm": "input_layernorm",
        "attn.q_proj": "self_attn.q_proj",
        "attn.k_proj": "self_attn.k_proj",
        "attn.v_proj": "self_attn.v_proj",
        "attn.o_proj": "self_attn.o_proj",
        "mlp_norm": "post_attention_layernorm",
        "mlp.gate_proj": "mlp.gate_proj",
        "mlp.up_proj": "mlp.up_proj",
        "mlp.down_proj": "mlp.down_proj",
    }
    names = {"embed.weight": "model.embed_tokens.weight"}
    for i in range(config.num_hidden_layers):
        for ours, theirs in layer.items():
            names[f"blocks.{i}.{ours}.weight"] = f"model.layers.{i}.{theirs}.weight"
    names["norm.weight"] = "model.norm.weight"
    if not config.tie_word_embeddings:
        names["lm_head.weight"] = "lm_head.weight"
    return names


def as_tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    """A value of the map as a tuple of one name or more."""
    return (names,) if isinstance(names, str) else names


def plan_copies(
    model: nn.Module, names: dict[str, str | tuple[str, ...]], index: dict[str, TensorInfo]
) -> tuple[list[tuple[str, torch.Tensor]], list[str]]:
    """What to copy where, and what is wrong, a sentence each.

    A copy is a tensor's name and the rows of a parameter that it fills.
    """
    copies, problems = [], []
    for ours, parameter in model.named_parameters():
        theirs = as_tuple(names.get(ours, ()))
        missing = [name for name in theirs if name not in index]
        problems += [f"{n}: missing, wanted for {ours}" for n in missing]
        if not theirs:
            problems.append(f"{ours}: no tensor of the checkpoint belongs here")
        if missing or not theirs:
            continue
        shapes = [list(index[name].shape) for name in theirs]
        rows = [sum(shape[:1]) for shape in shapes]  # a scalar has none
        wanted = list(parameter.shape)
        stacked = [[n, *wanted[1:]] for n in rows]
        if shapes == stacked and wanted[:1] == [sum(rows)]:
            parts = parameter.detach().split(rows)
            copies += zip(theirs, parts, strict=True)
        else:
            found = " and ".join(map(str, shapes))
            problems.append(f"{' and '.join(theirs)}: shape {found}, not {wanted}")
    return copies, problems


EMBED = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
FLOATS = ("F64", "F32", "F16", "BF16")  # what weights are stored in


def unloadable(index: dict[str, TensorInfo], names: dict[str, str | tuple[str, ...]]) -> list[str]:
    """What in the files is unknown, or of a dtype that is not read."""
    known = {HEAD}.union(*map(as_tuple, names.values()))
    new = [name for name in index if name not in known]
    problems = [f"{name}: unexpected, the model has no such tensor" for name in new]
    for name, info in index.items():
        if info.dtype not in FLOATS:
            problems.append(f"{name}: dtype {info.dtype} is not among {FLOATS}")
    return problems


def plan_load(
    model: nn.Module, path: str | PathLike
) -> tuple[list[tuple[str, torch.Tensor]], dict[str, TensorInfo]]:
    """What to copy where, and all that the files hold.

    Nothing but headers is read. CheckpointError tells all that is wrong.
    """
    names = key_map(ModelConfig.from_pretrained(path))
    index = read_index(path)
    for name in list(index):
        if name.endswith("rotary_emb.inv_freq"):  # old; computed on Day 4
            del index[name]
    copies, problems = plan_copies(model, names, index)
    fail_on(unloadable(index, names) + problems, Path(path))
    return copies, index


def refuse_other_sizes(config: ModelConfig, path: str | PathLike) -> None:
    """CheckpointError where tensors have other sizes than `config` says.

    A model of a wrong config could take any memory: look before it is
    made.
    """
    wanted, index = config.tensor_shapes(), read_index(path)
    problems = [
        f"{name}: shape {list(info.shape)}, not {list(wanted[name])}"
        for name, info in index.items()
        if wanted.get(name, info.shape) != info.shape
    ]
    if problems:
        problems += unloadable(index, key_map(config))
        problems += [f"{n}: missing" for n in wanted if n not in index]
    fail_on(problems, Path(path))


GIB = 2**30


class Files:
    """A checkpoint's files, mapped into memory to read tensors from."""

    def __init__(self, index: dict[str, TensorInfo]):
        self.index = index
        self.map()

    def map(self) -> None:
        """Map every file, and let go of what was mapped before."""
        self.mapped, self.bytes_read = {}, 0
        for name, info in self.index.items():
            file = info.file
            try:
                if file not in self.mapped:
                    self.mapped[file] = safe_open(file, "pt")
                held = self.mapped[file].get_slice(name).get_shape()
            except (OSError, SafetensorError) as error:
                fail_on([str(error)], file)
            if held != list(info.shape):
                fail_on([f"{name}: changed after it was checked"], file)

    def read(self, name: str) -> torch.Tensor:
        """The tensor `name`: a view of the file's pages."""
        info = self.index[name]
        # A page that was read counts as our memory while it is mapped.
        if self.bytes_read > GIB:
            self.map()
        self.bytes_read += info.end - info.start
        return self.mapped[info.file].get_tensor(name)


def refuse_other_head(files: Files, where: Path) -> None:
    """CheckpointError where a tied head is not the embedding."""
    if EMBED not in files.index:
        fail_on([f"{EMBED}: missing, and {HEAD} is tied to it"], where)
    head, embed = files.read(HEAD), files.read(EMBED)
    if head.dtype != embed.dtype or not torch.equal(head, embed):
        fail_on([f"{HEAD}: tied to {EMBED}, but their values differ"], where)


def is_finite(values: torch.Tensor) -> bool:
    """Whether no value is NaN or infinite, told with no large copy."""
    flat = values.flatten()
    # The sum of squares is one fast pass. It can overflow: look again.
    return bool(flat.dot(flat).isfinite() or flat.isfinite().all())


def load_weights(model: nn.Module, path: str | PathLike) -> list[str]:
    """Fill `model`, in place, from the checkpoint in folder `path`.

    `model` is any module whose parameters have our names, or a part of
    one. Its dtypes stay: values are cast as they are copied. Returns the
    names of tensors without a parameter, and warns of NaN and infinity.
    CheckpointError tells all that is wrong before a byte is copied: the
    model is untouched. Only files that change while they are read can
    fail later.
    """
    copies, index = plan_load(model, path)
    empty = [name for name, p in model.named_parameters() if p.is_meta]
    wanting = "has no memory, call model.to_empty first"
    fail_on([f"{name}: {wanting}" for name in empty], Path(path))
    files, not_finite = Files(index), []
    tied = ModelConfig.from_pretrained(path).tie_word_embeddings
    if tied and HEAD in index:
        refuse_other_head(files, Path(path))
    pages = HugePages()
    for name, target in copies:
        with pages.filling(target):
            target.copy_(files.read(name))  # cast on the way
        if not is_finite(target):
            not_finite.append(name)
    if not_finite:
        found = ", ".join(not_finite[:5])
        more = ", ..." if len(not_finite) > 5 else ""
        warnings.warn(f"{path}: NaN or infinity in {found}{more}", stacklevel=2)
    copied = {name for name, _ in copies}
    return [name for name in index if name not in copied]
