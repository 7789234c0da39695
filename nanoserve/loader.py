"""From a checkpoint's files to a model's parameters.

Built in the book: day03. Edit there, then run book/tangle.py.
"""

import warnings
from os import PathLike
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from nanoserve.checkpoints.headers import (
    CheckpointError,
    TensorInfo,
    fail_on,
    first,
    read_header,
    weight_files,
)
from nanoserve.config import ModelConfig


def read_index(path: str | PathLike) -> dict[str, TensorInfo]:
    """Every tensor of the checkpoint in folder `path`, by its name.

    Only headers are read: that of model.safetensors, or those of the
    shards. They are believed, and not what an index says of tensors.
    CheckpointError tells all that is wrong.
    """
    tensors, problems = {}, []
    for file in weight_files(Path(path)):
        try:
            found = read_header(file)
        except CheckpointError as error:
            problems += str(error).splitlines()
            continue
        for name in sorted(tensors.keys() & found.keys()):
            problems.append(f"{name}: in {file.name}, and in another file")
        tensors |= found
    fail_on(problems, Path(path))
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


def plan_copies(
    model: nn.Module, names: dict[str, str | tuple[str, ...]], index: dict[str, TensorInfo]
) -> tuple[list[tuple[str, torch.Tensor]], list[str]]:
    """What to copy where, and what is wrong, a sentence each.

    A copy is a tensor's name and the rows of a parameter that it fills,
    detached and not copied. `names` is as key_map gives it. Wrong are a
    parameter without a name, a tensor that is not in `index`, and a
    shape other than the parameter's: then nothing is copied there.
    """
    copies, problems = [], []
    for ours, parameter in model.named_parameters():
        theirs = names.get(ours, ())
        theirs = (theirs,) if isinstance(theirs, str) else theirs
        missing = [f"{n}: missing" for n in theirs if n not in index]
        if missing or not theirs:
            problems += missing or [f"{ours}: no tensor belongs here"]
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


HEAD = "lm_head.weight"
FLOATS = ("F64", "F32", "F16", "BF16")  # what weights are stored in


def wrong_tensors(config: ModelConfig, index: dict[str, TensorInfo]) -> list[str]:
    """What is missing, does not fit or is unknown, some of each."""
    shapes, unfit, unknown = config.tensor_shapes(), [], []
    missing = [f"{name}: missing" for name in shapes if name not in index]
    for name, info in index.items():
        wanted = shapes.get(name)
        if wanted is None:  # RoPE's table is of old files (Day 4)
            if name != HEAD and not name.endswith("rotary_emb.inv_freq"):
                unknown.append(f"{name}: unexpected, the model has no such tensor")
            continue
        if info.shape != wanted:
            unfit.append(f"{name}: shape {list(info.shape)}, not {list(wanted)}")
        if info.dtype not in FLOATS:
            unfit.append(f"{name}: dtype {info.dtype}, not of {FLOATS}")
    return first(missing, 6) + first(unfit, 7) + first(unknown, 6)


def refuse_other_sizes(config: ModelConfig, path: str | PathLike) -> None:
    """CheckpointError where the files do not hold what `config` says.

    A model of a wrong config could take any memory: look before it is
    made.
    """
    fail_on(wrong_tensors(config, read_index(path)), Path(path))


def read_tensor(name: str, index: dict[str, TensorInfo]) -> torch.Tensor:
    """The tensor as stored: a view of its file, mapped while it lives."""
    with safe_open(index[name].file, "pt") as file:
        return file.get_tensor(name)


def copy_tensors(copies: list[tuple[str, torch.Tensor]], index: dict[str, TensorInfo]) -> list[str]:
    """Carry out what plan_copies planned; the names of what is not finite.

    One tensor of the files is looked at at a time. It is cast as it is
    copied, straight from its stored dtype. A name is returned where a
    value that was written is NaN or infinite.
    """
    not_finite = []
    for name, target in copies:
        target.copy_(read_tensor(name, index))
        # NaN anywhere makes both extremes NaN.
        if not all(x.isfinite() for x in target.aminmax()):
            not_finite.append(name)
    return not_finite


def refuse_other_head(index: dict[str, TensorInfo], path: str | PathLike) -> None:
    """CheckpointError where a tied head is not the embedding."""
    table = "model.embed_tokens.weight"
    head, embed = read_tensor(HEAD, index), read_tensor(table, index)
    tied = f"{HEAD}: tied to {table}"
    if head.shape != embed.shape:
        shapes = f"shape {list(head.shape)}, not {list(embed.shape)}"
        fail_on([f"{tied}, but its {shapes}"], Path(path))
    same = head == embed
    if not same.all():  # NaN is not equal to itself
        same |= head.isnan() & embed.isnan()
    if not same.all():
        fail_on([f"{tied}, but their values differ"], Path(path))


def load_weights(model: nn.Module, path: str | PathLike) -> list[str]:
    """Fill `model`, in place, from the checkpoint in folder `path`.

    `model` is any module whose parameters have our names, or a part of
    one. Its dtypes stay: values are cast as they are copied. Returns the
    names of tensors without a parameter, and warns of NaN and infinity.
    CheckpointError tells all that is wrong with the files, or with the
    model, before a byte is copied: the model is untouched. Only files
    that change while they are read can fail later.
    """
    config, index = ModelConfig.from_pretrained(path), read_index(path)
    fail_on(wrong_tensors(config, index), Path(path))
    copies, problems = plan_copies(model, key_map(config), index)
    empty = [name for name, p in model.named_parameters() if p.is_meta]
    what = "no memory, call model.to_empty first"
    problems += [f"{name}: {what}" for name in empty]
    fail_on(problems, Path(path))
    if config.tie_word_embeddings and HEAD in index:
        refuse_other_head(index, path)
    not_finite = copy_tensors(copies, index)
    if not_finite:
        found = ", ".join(not_finite[:5])
        more = ", ..." if len(not_finite) > 5 else ""
        warnings.warn(f"{path}: NaN or infinity in {found}{more}", stacklevel=2)
    copied = {name for name, _ in copies}
    return [name for name in index if name not in copied]
