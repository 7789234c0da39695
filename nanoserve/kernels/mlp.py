"""silu(gate) * up, in one pass over memory."""

import torch
import triton
import triton.language as tl

from nanoserve.kernels.launch import early, let_next, wait_ahead


@triton.jit
def silu_mul_kernel(gate_up_ptr, out_ptr, F: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """A part of a row: the first F numbers are gates, the other F what they let through."""
    row = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    let_next(PDL)
    wait_ahead(PDL)
    gate = tl.load(gate_up_ptr + row * 2 * F + f, mask=f < F, other=0.0)
    up = tl.load(gate_up_ptr + row * 2 * F + F + f, mask=f < F, other=0.0)
    wide = gate.to(tl.float32)
    silu = (wide / (1 + tl.exp(-wide))).to(gate.dtype)
    tl.store(out_ptr + row * F + f, silu * up, mask=f < F)


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """silu of the first half of each row, times the second: (T, 2 F) -> (T, F)."""
    T, F = len(gate_up), gate_up.shape[1] // 2
    out, block = gate_up.new_empty(T, F), min(1024, triton.next_power_of_2(F))
    silu_mul_kernel[(T, triton.cdiv(F, block))](gate_up, out, F, block, num_warps=4, **early())
    return out
