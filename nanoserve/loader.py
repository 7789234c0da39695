"""From a checkpoint's files to a model's parameters.

Built in the book: day03. Edit there, then run book/tangle.py.
"""

import warnings
from contextlib import ExitStack
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from nanoserve.config import ModelConfig
from nanoserve.headers import CheckpointError, TensorInfo, fail_on, inside, read_header, read_json

EMBED = "model.embed_tokens.weight"
HEAD = "lm_head.weight"

FLOATS = (
    "F64",
    "F32",
    "F16",
    "BF16",
)  # what a checkpoint of this family is stored in


def read_index(path: str | PathLike) -> dict[str, TensorInfo]:
    """Every tensor of the checkpoint in the folder `path`, from its
    headers alone.

    The folder holds model.safetensors, or several files and
    model.safetensors.index.json. Raises CheckpointError with all that
    is wrong.
    """
    folder = Path(path)
    if (folder / "model.safetensors").is_file():
        return read_header(folder / "model.safetensors")
    index = folder / "model.safetensors.index.json"
    try:
        weight_map = read_json(index.read_bytes()).get("weight_map")
    except OSError as error:
        raise CheckpointError(no_weights(folder, error)) from error
    except ValueError as error:
        raise CheckpointError(f"{index} is not a JSON object: {error}") from error
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{index}: weight_map must map tensors to file names")
    tensors, problems = {}, []
    for shard in sorted(set(weight_map.values())):
        try:
            found = read_header(inside(folder, shard))
        except CheckpointError as error:
            problems.append(str(error))
            continue
        named = {name for name, file in weight_map.items() if file == shard}
        problems += [f"{name}: not in {shard}, where the index says" for name in named - set(found)]
        problems += [f"{name}: in {shard}, but not so in the index" for name in set(found) - named]
        tensors |= found
    fail_on(sorted(problems), folder)
    return tensors


def no_weights(folder: Path, error: OSError) -> str:
    """Why a folder has no index to read, and what to do."""
    if not folder.is_dir():
        return f"{folder} is not a folder, as a checkpoint is"
    if isinstance(error, FileNotFoundError):
        pickles = sorted(f.name for f in folder.iterdir() if f.suffix in (".bin", ".pth", ".pt"))
        also = f"; {pickles[0]} is a pickle, which can run code: never opened" if pickles else ""
        return (
            f"{folder} has no model.safetensors and no index{also}: "
            "get the checkpoint's safetensors files"
        )
    return f"{error.filename} cannot be read: {error.strerror}"


def key_map(config: ModelConfig) -> dict[str, str | tuple[str, ...]]:
    """Our name of each parameter -> the checkpoint's name of the tensor
    that fills it.

    A tuple of names stands for tensors stacked along dimension 0, for
    layers that fuse them.
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
    model: nn.Module,
    names: dict[str, str | tuple[str, ...]],
    index: dict[str, TensorInfo],
) -> tuple[list[tuple[str, torch.Tensor]], list[str]]:
    """Each needed tensor's name with the part of a parameter that it
    fills, and the problems.
    """
    copies, problems = [], []
    for ours, parameter in model.named_parameters():
        theirs = as_tuple(names.get(ours, ()))
        missing = [name for name in theirs if name not in index]
        problems += [f"{name}: missing, wanted for {ours}" for name in missing]
        if not theirs:
            problems.append(f"{ours}: no tensor of the checkpoint belongs here")
        if parameter.is_meta:
            problems.append(f"{ours}: has no memory, call model.to_empty first")
        if missing or not theirs:
            continue
        shapes = [index[name].shape for name in theirs]
        rows = [sum(shape[:1]) for shape in shapes]
        if sum(rows) == parameter.shape[0]:
            parts = parameter.detach().split(rows)
            copies += zip(theirs, parts, strict=True)
            fits = [part.shape for part in parts] == shapes
        if sum(rows) != parameter.shape[0] or not fits:
            found = " and ".join(f"{list(shape)}" for shape in shapes)
            wanted = list(parameter.shape)
            problems.append(f"{' and '.join(theirs)}: shape {found}, not {wanted}")
    return copies, problems


def unloadable(index: dict[str, TensorInfo], names: dict[str, str | tuple[str, ...]]) -> list[str]:
    """What the files hold that this architecture does not know, or in a
    dtype that is not read.
    """
    known = {name for value in names.values() for name in as_tuple(value)} | {HEAD}
    problems = [f"{n}: unexpected, the model has no such tensor" for n in index if n not in known]
    for name, info in index.items():
        if info.dtype not in FLOATS:
            problems.append(f"{name}: dtype {info.dtype} is not among {FLOATS}")
    return problems


def refuse_other_head(head: torch.Tensor, embed: torch.Tensor, where: Path) -> None:
    """Raise CheckpointError where a tied head is in the file and is not
    the embedding.
    """
    if head.dtype != embed.dtype or not torch.equal(head, embed):
        problem = f"{HEAD}: tied to {EMBED}, but their values differ"
        fail_on([problem], where)


def is_finite(values: torch.Tensor) -> bool:
    """Whether there is no NaN and no infinity among `values`."""
    flat = values.flatten()
    # The sum of squares is one fast pass. It may overflow, so a hit is
    # looked at again.

    return bool(flat.dot(flat).isfinite() or flat.isfinite().all())


def open_files(index: dict[str, TensorInfo], stack: ExitStack) -> dict[Path, safe_open]:
    """Every file of the index, mapped until `stack` closes it."""
    files = {}
    for file in {info.file: None for info in index.values()}:
        try:
            files[file] = stack.enter_context(safe_open(file, "pt"))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file} cannot be loaded: {error}") from error
    return files


def load_weights(model: nn.Module, path: str | PathLike) -> list[str]:
    """Fill the parameters of `model`, in place, from the checkpoint in the
    folder `path`.

    `model` is any module whose parameters have our names, a part of the
    whole too. Its dtypes stay: values are cast as they are copied.
    Returns the names of the tensors that it had no parameter for.
    Everything is checked from the headers before the first byte is
    copied: CheckpointError tells all that is missing, unexpected or
    misshapen, the model untouched.
    """
    config = ModelConfig.from_pretrained(path)
    names = key_map(config)
    index = {
        name: info
        for name, info in read_index(path).items()
        if not name.endswith("rotary_emb.inv_freq")  # old files keep what follows from the config
    }
    copies, problems = plan_copies(model, names, index)
    fail_on(unloadable(index, names) + problems, Path(path))
    with ExitStack() as stack:
        files = open_files(index, stack)
        read = {name: files[info.file].get_tensor for name, info in index.items()}
        if config.tie_word_embeddings and HEAD in index:
            refuse_other_head(read[HEAD](HEAD), read[EMBED](EMBED), Path(path))
        not_finite = []
        for name, target in copies:
            target.copy_(read[name](name))  # cast on the way: the source is the mapped file
            if not is_finite(target):
                not_finite.append(name)
    if not_finite:
        names = ", ".join(not_finite[:5]) + (", ..." if len(not_finite) > 5 else "")
        warnings.warn(f"{path}: NaN or infinity in {names}", stacklevel=2)
    copied = {name for name, _ in copies}
    return [name for name in index if name not in copied]
