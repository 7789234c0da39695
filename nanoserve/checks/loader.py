"""The loader on sound checkpoints: index, map, what it costs, parts and fused layers: Day 3."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from nanoserve.checks.common import BF16, agree, attempt
from nanoserve.checks.made import HEAD, TABLE, Tensors, empty_model
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.config import ModelConfig
from nanoserve.loader import key_map, load_weights, plan_copies, read_index
from nanoserve.reference import Reference, our_name

SLACK = 2**25  # bytes; what the allocator takes at a time


def only_parameters(ref: Reference) -> Tensors:
    """HuggingFace's parameters by our names; all else that `ref` keeps is let go."""
    ref.inputs.clear()
    ref.outputs.clear()
    if ref.config.tie_word_embeddings:  # transformers 5.0 keeps a copied head
        ref.parameters.pop(HEAD, None)
    return ref.parameters


@contextmanager
def watched(path: Path, model: nn.Module) -> Iterator[None]:
    """AssertionError unless the block fills `model` in place, with little memory on top."""
    where = label(path)
    before = {name: (p, p.data_ptr()) for name, p in model.named_parameters()}
    largest = 4 * max(p.numel() for p in model.parameters())
    with anonymous_memory() as seen:
        try:
            yield
        except NotImplementedError:  # a practice notebook's blank says so itself
            raise
        except Exception as error:
            raise AssertionError(f"{where}: {error!r}") from error
    rise, allowed = max(seen) - seen[0], max(largest, SLACK)
    agree(f"{where}, memory rose by {rise} of {allowed} allowed bytes", rise <= allowed, True)
    after = dict(model.named_parameters())
    agree(f"{where}, names of the parameters", list(after), list(before))
    for name, (parameter, place) in before.items():
        same = after[name] is parameter and parameter.data_ptr() == place
        agree(f"{where}, {name} is filled in place", same, True)


@contextmanager
def anonymous_memory() -> Iterator[list[int]]:
    """The bytes of anonymous memory before the block, then again and again (Linux; else 0)."""
    seen, done = [anonymous_bytes()], threading.Event()

    def watch():
        while not done.wait(0.0005):
            seen.append(anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def anonymous_bytes() -> int:
    """This process's memory that the kernel cannot read again from a file; 0 if untold."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text())
    return int(found[1]) * 1024 if found else 0


def check_loading(board: Scoreboard, ref: Reference, left_over: list[str]) -> None:
    """The index, the map and what was left over; then bf16 and parts, and on small ones fused."""
    where = label(ref.path)
    stored = check_index(ref.path)
    head = {HEAD} & stored if ref.config.tie_word_embeddings else set()
    used = {name for name in stored - head if not name.endswith(TABLE)}
    names = attempt(f"{where}, key_map", key_map, ModelConfig.from_pretrained(ref.path))
    agree(f"{where}, map", names, {our_name(name): name for name in used})
    agree(f"{where}, HuggingFace's names", set(names), set(ref.parameters))
    check_left_over(where, left_over, head)
    for component, wanted in parts(ref):
        rest = used - {names[name] for name in wanted} | head
        check_part(board, ref, component, wanted, rest)
    if ref.path.name == MADE_UP:
        check_fused(board, ref, names)


def label(path: Path) -> str:
    """A checkpoint's name for messages; small ones share the last part of it."""
    return f"{path.parent.name}/{path.name}"


def check_index(path: Path) -> set[str]:
    """Names, files, shapes and sizes against what safetensors reads; gives the names."""
    where = label(path)
    index = attempt(f"{where}, read_index", read_index, path)
    held = {}
    for file in path.glob("model*.safetensors"):
        held |= {name: (file, tensor) for name, tensor in load_file(file).items()}
    agree(f"{where}, names in the index", set(index), set(held))
    for name, (file, tensor) in held.items():
        info = index[name]
        found = info.file.name, info.shape, info.end - info.start
        wanted = file.name, tuple(tensor.shape), tensor.nbytes
        agree(f"{where}, index of {name}", found, wanted)
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
    found = attempt(f"{where}, left over", sorted, left_over)
    agree(f"{where}, left over", found, sorted(wanted))


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
    agree("problems of a fused map", problems, [])
    taken = sorted(name for value in fused.values() for name in value)
    agree("a fused map's tensors", sorted(name for name, _ in copies), taken)
    for name, target in copies:
        part = ref.parameters[our_name(name)]
        agree(f"the place of {name}", target.shape, part.shape)
        target.copy_(part)
    for name, mine in model.named_parameters():
        values = mine.detach(), wanted[name]
        board.compare(ref, "fused qkv, gate and up", name, *values, rtol=0, atol=0)
