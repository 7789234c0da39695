"""The loader on sound checkpoints: index, map, what it costs, parts and fused layers: Day 3."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file

from nanoserve.checks.common import BF16, agree, attempt, holds
from nanoserve.checks.loader_memory import check_filled, label, watched
from nanoserve.checks.made import FILE, HEAD, Tensors, empty_model
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.config import ModelConfig
from nanoserve.loader import key_map, load_weights, plan_copies, read_index, read_tensor
from nanoserve.reference import Reference, our_name


def only_parameters(ref: Reference) -> Tensors:
    """HuggingFace's parameters by our names; all else that `ref` keeps is let go."""
    ref.inputs.clear()
    ref.outputs.clear()
    if ref.config.tie_word_embeddings:  # transformers 5.0 keeps a copied head
        ref.parameters.pop(HEAD, None)
    return ref.parameters


def check_names(ref: Reference) -> dict[str, str]:
    """The index against the files, the map against HuggingFace's names; gives the map."""
    where = label(ref.path)
    stored = check_index(ref.path)
    names = attempt(f"key_map, {where}", key_map, ModelConfig.from_pretrained(ref.path))
    if not isinstance(names, dict):
        raise AssertionError(f"key_map, {where}: it must return a dict, and returned {names!r:.99}")
    wanted = {our_name(name): name for name in stored if our_name(name) in ref.parameters}
    wrong = [name for name in wanted if names.get(name) != wanted[name]]
    if wrong:
        raise AssertionError(
            f"key_map, {where}: {wrong[0]} must be filled from {wanted[wrong[0]]!r}, and the map "
            f"says {names.get(wrong[0])!r}; {len(wrong)} of {len(wanted)} names are wrong"
        )
    agree(f"key_map, {where}, names that no parameter has", sorted(set(names) - set(wanted)), [])
    return names


def check_loading(
    board: Scoreboard, ref: Reference, names: dict[str, str], left_over: list[str]
) -> None:
    """What was left over; then all in bf16, parts, and on small ones fused. `names` is the map."""
    stored = set(read_index(ref.path))
    where = label(ref.path)
    check_left_over(where, left_over, stored - set(names.values()))
    for component, wanted in parts(ref):
        check_part(board, ref, component, wanted, stored - {names[name] for name in wanted})
    if ref.path.name == MADE_UP:
        check_fused(board, ref, names)


def check_index(path: Path) -> set[str]:
    """Names, files, shapes and sizes against what safetensors reads; gives the names."""
    where = label(path)
    index = attempt(f"read_index, {where}", read_index, path)
    files, held = [path / FILE], {}
    if not files[0].exists():  # an index beside it is a leftover
        listed = json.loads((path / f"{FILE}.index.json").read_text("utf-8"))["weight_map"]
        files = [path / file for file in set(listed.values())]
    for file in files:
        held |= {name: (file, tensor) for name, tensor in load_file(file).items()}
    agree(f"read_index, {where}, names", set(index), set(held))
    for name, (file, tensor) in held.items():
        info = index[name]
        found = info.file.name, info.shape, info.end - info.start
        wanted = file.name, tuple(tensor.shape), tensor.nbytes
        agree(f"read_index, {where}, {name}: file, shape, bytes", found, wanted)
        kind = getattr(
            attempt(f"read_tensor, {where}, {name}", read_tensor, name, index), "dtype", None
        )
        as_stored = (
            f"read_tensor, {where}: {name} must come in the dtype of its file, {tensor.dtype}"
        )
        holds(as_stored, kind == tensor.dtype, f"it came as {kind}")
    return set(held)


def parts(ref: Reference) -> Iterator[tuple[str, Tensors]]:
    """A row's name, and the parameters to load for it: all in bf16, the norms, two sublayers."""
    whole = ref.parameters
    yield "every parameter, bf16", in_bf16(ref)
    yield "a part", {name: whole[name] for name in whole if "norm" in name}
    ends = "blocks.0.mlp", f"blocks.{ref.num_layers - 1}.attn"
    yield "a part", {name: whole[name] for name in whole if name.startswith(ends)}


def in_bf16(ref: Reference) -> Tensors:
    """The parameters in bf16; from fp64 as HuggingFace itself casts them, not by way of fp32."""
    whole = ref.parameters
    if "F64" in {info.dtype for info in read_index(ref.path).values()}:
        again = Reference(ref.path, BF16, keep_parameters=True)
        return {name: again.parameters[name] for name in whole}
    return {name: tensor.to(BF16) for name, tensor in whole.items()}


def check_part(
    board: Scoreboard, ref: Reference, component: str, wanted: Tensors, rest: set[str]
) -> None:
    """Load these parameters alone, in their dtype; the tensors in `rest` are left over."""
    dtype = next(iter(wanted.values())).dtype
    model = empty_model({name: tensor.shape for name, tensor in wanted.items()}, dtype)
    for parameter in [*model.parameters()][::2]:
        parameter.requires_grad_(False)  # and so it must stay
    with watched(ref.path, model):
        left_over = load_weights(model, ref.path)
    check_left_over(f"{label(ref.path)}, {component}", left_over, rest)
    for name, mine in model.named_parameters():
        large = ref.path.name != MADE_UP and mine.dim() > 1
        if large and torch.equal(mine, wanted[name]):
            continue  # the table costs more than the loading
        board.compare(ref, component, name, mine.detach(), wanted[name], rtol=0, atol=0)


def check_left_over(where: str, left_over: list[str], wanted: set[str]) -> None:
    """What load_weights returned: the names of tensors without a parameter, in any order."""
    found = attempt(f"load_weights, {where}, what it returns", sorted, left_over)
    agree(f"load_weights, {where}, tensors left over", found, sorted(wanted))


def check_fused(board: Scoreboard, ref: Reference, names: dict[str, str]) -> None:
    """A map whose values are tuples: q, k and v in one tensor, gate and up in one, every layer."""
    fused, wanted = {}, {}
    for i in range(ref.num_layers):
        for sublayer, letters in (("attn", ("q", "k", "v")), ("mlp", ("gate", "up"))):
            ours = [f"blocks.{i}.{sublayer}.{x}_proj.weight" for x in letters]
            fused[f"{i}.{sublayer}"] = tuple(names[name] for name in ours)
            wanted[f"{i}.{sublayer}"] = torch.cat([ref.parameters[name] for name in ours])
    model = empty_model({name: tensor.shape for name, tensor in wanted.items()})
    index = read_index(ref.path)
    copies, problems = attempt("a fused map", plan_copies, model, fused, index)
    agree("plan_copies of a fused map, problems", problems, [])
    taken = sorted(name for value in fused.values() for name in value)
    agree("plan_copies of a fused map, tensors to copy", sorted(name for name, _ in copies), taken)
    for name, target in copies:
        part = ref.parameters[our_name(name)]
        agree(f"plan_copies of a fused map, the rows for {name}", target.shape, part.shape)
        target.copy_(part)
    check_filled("plan_copies of a fused map, its copies carried out", model)
    for name, mine in model.named_parameters():
        values = mine.detach(), wanted[name]
        board.compare(ref, "fused qkv, gate and up", name, *values, rtol=0, atol=0)
