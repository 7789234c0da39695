"""When a kernel may start, and what it may be handed.

A kernel that is launched early, Hopper's programmatic dependent launch,
waits by `wait_ahead` before it reads what the one ahead wrote, and lets
its own follower start by `let_next`. Both do nothing elsewhere.

Built in the book: day22. Edit there, then run book/tangle.py.
"""

import functools

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

INTERPRETED = triton.knobs.runtime.interpret


@triton.jit
def wait_ahead(PDL: tl.constexpr):
    """All that the kernel ahead wrote can be read from here on."""
    if PDL:
        gdc_wait()


@triton.jit
def let_next(PDL: tl.constexpr):
    """The next kernel may start, and load what nobody writes."""
    if PDL:
        gdc_launch_dependents()


@functools.cache
def early() -> dict:
    """Arguments of a launch that may begin early, where the card can."""
    able = not INTERPRETED and torch.cuda.get_device_capability()[0] >= 9
    return {"PDL": True, "launch_pdl": True} if able else {"PDL": False}


def refuse_gaps(**tensors: torch.Tensor) -> None:
    """ValueError unless each lies whole in memory, row after row."""
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ValueError(
                f"{name} {[*tensor.shape]} has strides "
                f"{tensor.stride()}, and a kernel knows none: hand over "
                f"{name}.contiguous()"
            )
