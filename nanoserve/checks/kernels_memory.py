"""What a kernel's function does with memory: beside its result, before it and after it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nanoserve.checks.common import alike, holds, must_raise
from nanoserve.kernels.launch import INTERPRETED

WIDE = 4096  # numbers on either side of a result: more than a block has


class Fences(TorchDispatchMode):
    """A new tensor of floats lies between two fences of NaN, and is NaN where it was empty.

    Without them a store past the end of a result is lost unseen, or ends the whole process.
    """

    def __init__(self, name: str):
        super().__init__()
        self.name = name
        self.memories = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        if op.is_view or op._schema.is_mutable or not isinstance(out, torch.Tensor):
            return out
        if not (out.numel() and out.is_floating_point() and out.is_contiguous()):
            return out
        memory = out.new_full((out.numel() + 2 * WIDE,), torch.nan)
        inside = memory[WIDE:-WIDE].view(out.shape)
        if "empty" not in op.__name__:
            inside.copy_(out)
        self.memories.append(memory)
        return inside

    def __exit__(self, *error):
        super().__exit__(*error)
        if error[0] is None:
            whole = all(m[:WIDE].isnan().all() and m[-WIDE:].isnan().all() for m in self.memories)
            holds(f"{self.name} must store nothing beside its result: look at its mask", whole)


@contextmanager
def unsaid() -> Iterator[None]:
    """A masked load without `other` gives NaN: Triton promises nothing, the interpreter gives 0.

    github.com/triton-lang/triton/issues/9917
    """
    # Here, for nanoserve.kernels must have found Triton first.
    from triton.runtime.interpreter import InterpreterBuilder

    load = InterpreterBuilder.create_masked_load

    def honest(self, ptrs, mask, other, *how):
        got = load(self, ptrs, mask, other, *how)
        if other is None and got.data.dtype.kind == "f":
            got.data[~mask.data] = numpy.nan
        return got

    quiet = numpy.errstate(over="ignore")  # e to 100 is infinite on a card, and not a word said
    with patch.object(InterpreterBuilder, "create_masked_load", honest), quiet:
        yield


def stored(name: str, mine: torch.Tensor) -> None:
    """AssertionError unless it is a tensor without NaN, which is what nobody stored anything in."""
    came = type(mine).__name__
    holds(f"{name}: a tensor is wanted, and {came} came", isinstance(mine, torch.Tensor))
    lost = mine.isnan().nonzero().tolist()
    if lost:
        raise AssertionError(
            f"{name}: {len(lost)} of {mine.numel()} numbers are NaN, the first at {lost[0]}. Were "
            "they stored at all (the grid, the mask, the slot), is it infinity over infinity, 0 "
            "over 0 (a query that sees no key), or a masked load that does not say `other`?"
        )


def check_memory(act: Callable, **given: Any) -> None:
    """Gaps are refused, results are the caller's, and what comes first is waited for."""
    must_refuse(act, given)
    must_let_go(act, given)
    if INTERPRETED:
        must_wait(act, given)


def must_refuse(act: Callable, given: dict) -> None:
    """ValueError for each tensor in turn, the same numbers with a gap behind each, or each row."""
    for name, whole in given.items():
        if not isinstance(whole, torch.Tensor):
            continue
        wider = torch.cat([whole, whole], -1)[..., : whole.shape[-1]]
        for apart in (torch.stack([whole, whole], -1)[..., 0], wider):
            said = f"{act.__name__} with {name} of strides {apart.stride()}, which no kernel knows"
            if not apart.is_contiguous():
                must_raise(ValueError, said, act, *(given | {name: apart}).values())


def must_let_go(act: Callable, given: dict) -> None:
    """What a call gave stays as it is when the next gives its own."""
    x, *others = given.values()
    got = act(x.clone(), *others)
    kept = got.clone()
    act(-x, *others)
    holds(f"{act.__name__}: a result must stay as it is at the next call", alike(got, kept))


def must_wait(act: Callable, given: dict) -> None:
    """What another kernel writes is there from wait_ahead on. On a GPU only luck shows it."""
    x, *others = given.values()
    late = torch.full_like(x, torch.nan)
    module = sys.modules[act.__module__]
    with patch.object(module, "wait_ahead", lambda PDL: late.copy_(x), create=True):
        got = act(late, *others)
    said = "`wait_ahead(PDL)` must stand before the first load of what another kernel wrote"
    holds(f"{act.__name__}: {said}", not bool(got.isnan().any()))


def must_reach(rope_write: Callable) -> None:
    """A slot that lies past 2^31 numbers, where 32 bits turn negative; on the CPU alone.

    Only what is written takes room, so the pool costs nothing there. As much lies before it, where
    a negative address would come out.
    """
    if torch.cuda.is_available():
        return
    D = 64
    pool = torch.empty(2**32 + 2 * D, dtype=torch.int8)[2**31 :].view(-1, 1, D)
    qkv = torch.arange(1, 3 * D + 1, dtype=torch.int8)[None]
    where, table = torch.tensor([len(pool) - 1], dtype=torch.int32), torch.ones(1, D // 2)
    rope_write(qkv, table, 0 * table, 0 * where, where, pool, pool)
    there = "cast it to tl.int64 before it is multiplied"
    holds(f"rope_write to a slot past 2^31 numbers: {there}", alike(pool[-1, 0], qkv[0, -D:]))
