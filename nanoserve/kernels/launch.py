"""Programmatic dependent launch, Hopper's way to start a kernel before the one ahead has ended.

A kernel that is launched so waits by `wait_for_the_kernel_ahead` before it reads what that one
wrote, and lets its own follower start by `let_the_next_start`. Both do nothing elsewhere.
"""

import functools

import torch
import triton
import triton.language as tl

INTERPRETED = triton.knobs.runtime.interpret
if not INTERPRETED:
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


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
