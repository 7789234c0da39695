"""silu(gate) * up, in one pass over memory.

Built in the book: day22. Edit there, then run book/tangle.py.
"""

import torch
import triton
import triton.language as tl

from nanoserve.kernels.launch import early, let_next, refuse_gaps, wait_ahead


@triton.jit
def silu_mul_kernel(
    gate_up_ptr, out_ptr,
    F: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """A part of a row: F gates come first, then F that they let by."""
    row = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    let_next(PDL)
    wait_ahead(PDL)
    gate_at = gate_up_ptr + row * 2 * F + f
    gate = tl.load(gate_at, mask=f < F, other=0.0)
    up = tl.load(gate_at + F, mask=f < F, other=0.0)
    wide = gate.to(tl.float32)
    silu = (wide / (1 + tl.exp(-wide))).to(gate.dtype)
    tl.store(out_ptr + row * F + f, silu * up, mask=f < F)


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """silu of each row's first half, times the second: (T, 2F) to (T, F)."""
    refuse_gaps(gate_up=gate_up)
    T, F = len(gate_up), gate_up.shape[1] // 2
    out = gate_up.new_empty(T, F)
    block = min(1024, triton.next_power_of_2(F))
    silu_mul_kernel[(T, triton.cdiv(F, block))](gate_up, out, F, block, num_warps=4, **early())
    return out
