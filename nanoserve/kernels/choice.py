"""The next token of every row, by two small kernels that read the scores once and a bit."""

import torch
import triton
import triton.language as tl

from nanoserve.kernels.launch import early, let_next, wait_ahead

CHUNK = 4096


@triton.jit
def mass_kernel(
    x_ptr, law_ptr, top_ptr, mass_ptr, V,
    CHUNKS: tl.constexpr, CHUNK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """A row and a chunk of it: its best score, and the chunk's mass beside that."""
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = chunk * CHUNK + tl.arange(0, CHUNK)
    t = tl.load(law_ptr + row).to(tl.float32)
    let_next(PDL)
    wait_ahead(PDL)
    x = tl.load(x_ptr + row * V + at, mask=at < V, other=-float("inf")).to(tl.float32)
    x = x / tl.where(t > 0, t, 1.0)
    top = tl.max(x, 0)
    tl.store(top_ptr + row * CHUNKS + chunk, top)
    base = tl.where(top == -float("inf"), 0.0, top)
    tl.store(mass_ptr + row * CHUNKS + chunk, tl.sum(tl.exp(x - base).to(tl.float64), 0))


@triton.jit
def draw_kernel(
    x_ptr, law_ptr, MOST, top_ptr, mass_ptr, row_ptr, newest_ptr, out_ptr, V,
    CHUNKS: tl.constexpr, C2: tl.constexpr, CHUNK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """A row: the chunk in which the point falls, then the token. Temperature 0: the best one."""
    row = tl.program_id(0).to(tl.int64)
    c, i = tl.arange(0, C2), tl.arange(0, CHUNK)
    t, u = tl.load(law_ptr + row).to(tl.float32), tl.load(law_ptr + MOST + row)
    place = tl.load(row_ptr + row)
    let_next(PDL)
    wait_ahead(PDL)
    tops = tl.load(top_ptr + row * CHUNKS + c, mask=c < CHUNKS, other=-float("inf"))
    best = tl.max(tops, 0)
    mass = tl.load(mass_ptr + row * CHUNKS + c, mask=c < CHUNKS, other=0.0)
    mass *= tl.exp((tops - best).to(tl.float32)).to(tl.float64)
    ends = tl.cumsum(mass, 0)
    point = u * tl.sum(mass, 0)
    last = tl.max(tl.where(mass > 0, c, 0), 0)  # where rounding puts the point past the end
    chunk = tl.minimum(tl.sum((ends <= point).to(tl.int32), 0), last)
    chunk = tl.where(t > 0, chunk, tl.argmax(tops, 0))
    before = tl.sum(tl.where(c < chunk, mass, 0.0), 0)
    at = chunk * CHUNK + i
    x = tl.load(x_ptr + row * V + at, mask=at < V, other=-float("inf")).to(tl.float32)
    x = x / tl.where(t > 0, t, 1.0)
    weight = tl.exp(x - best).to(tl.float64)
    ends = before + tl.cumsum(weight, 0)
    final = tl.max(tl.where(weight > 0, i, 0), 0)
    token = tl.minimum(tl.sum((ends <= point).to(tl.int32), 0), final)
    token = (chunk * CHUNK + tl.where(t > 0, token, tl.argmax(x, 0))).to(tl.int64)
    tl.store(out_ptr + row, token)
    tl.store(newest_ptr + place, token)


def choose(
    scores: torch.Tensor, law: torch.Tensor, rows: torch.Tensor, newest: torch.Tensor
) -> torch.Tensor:
    """A token for each row of scores, (N, V) -> (N,), which newest[rows] become too.

    law is (2, N or more) in float64: temperatures, 0 for the best token, and points u of [0, 1) on
    the line of a row's masses. As `sample` does with scores that nothing but a temperature has
    processed.
    """
    N, V = scores.shape
    chunks = triton.cdiv(V, CHUNK)
    top = scores.new_empty(N, chunks, dtype=torch.float32)
    mass = scores.new_empty(N, chunks, dtype=torch.float64)
    out = scores.new_empty(N, dtype=torch.int64)
    mass_kernel[(N, chunks)](scores, law, top, mass, V, chunks, CHUNK, num_warps=8, **early())
    draw_kernel[(N,)](
        scores, law, law.stride(0), top, mass, rows, newest, out, V,
        chunks, triton.next_power_of_2(chunks), CHUNK, num_warps=8, **early(),
    )  # fmt: skip
    return out
