"""RMSNorm in one pass over memory, the residual added on the way.

Built in the book: day22. Edit there, then run book/tangle.py.
"""

import torch
import triton
import triton.language as tl

from nanoserve.kernels.launch import early, let_next, refuse_gaps, wait_ahead


@triton.jit
def norm_kernel(
    x_ptr, delta_ptr, weight_ptr, out_ptr, eps,
    C: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """A row: x += delta, if there is one; out = norm(x) * weight."""
    row = tl.program_id(0).to(tl.int64) * C  # where it begins
    c = tl.arange(0, BLOCK)
    real = c < C
    weight = tl.load(weight_ptr + c, mask=real, other=0.0)
    let_next(PDL)
    wait_ahead(PDL)
    x = tl.load(x_ptr + row + c, mask=real, other=0.0)
    if ADD:
        x += tl.load(delta_ptr + row + c, mask=real, other=0.0)
        tl.store(x_ptr + row + c, x, mask=real)
    h = x.to(tl.float32)
    h *= tl.rsqrt(tl.sum(h * h, 0) / C + eps)
    tl.store(out_ptr + row + c, h.to(x.dtype) * weight, mask=real)


def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    delta: torch.Tensor | None = None,
) -> torch.Tensor:
    """RMSNorm of rows: (T, C) -> (T, C).

    With `delta` (T, C), of x + delta, which x becomes.
    """
    (T, C), added = x.shape, x if delta is None else delta
    refuse_gaps(x=x, weight=weight, delta=added)
    out, block = torch.empty_like(x), triton.next_power_of_2(C)
    norm_kernel[(T,)](
        x, added, weight, out, eps, C, block, delta is not None,
        num_warps=4 if block > 512 else 1, **early(),
    )  # fmt: skip
    return out
