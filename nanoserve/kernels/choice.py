"""The next token of every row, by two small kernels that read the scores once and a bit."""

import torch
import triton
import triton.language as tl

CHUNK = 4096


@triton.jit
def mass_kernel(
    x_ptr, temperature_ptr, top_ptr, mass_ptr, V, CHUNKS: tl.constexpr, CHUNK: tl.constexpr
):
    """A row and a chunk of it: its best score, and the chunk's mass beside that."""
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = chunk * CHUNK + tl.arange(0, CHUNK)
    x = tl.load(x_ptr + row * V + at, mask=at < V, other=-float("inf")).to(tl.float32)
    t = tl.load(temperature_ptr + row)
    x = x / tl.where(t > 0, t, 1.0)
    top = tl.max(x, 0)
    tl.store(top_ptr + row * CHUNKS + chunk, top)
    base = tl.where(top == -float("inf"), 0.0, top)
    tl.store(mass_ptr + row * CHUNKS + chunk, tl.sum(tl.exp(x - base).to(tl.float64), 0))


@triton.jit
def draw_kernel(
    x_ptr, temperature_ptr, u_ptr, top_ptr, mass_ptr, out_ptr, V,
    CHUNKS: tl.constexpr, C2: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """A row: the chunk in which the point falls, then the token. Temperature 0: the best one."""
    row = tl.program_id(0).to(tl.int64)
    c, i = tl.arange(0, C2), tl.arange(0, CHUNK)
    tops = tl.load(top_ptr + row * CHUNKS + c, mask=c < CHUNKS, other=-float("inf"))
    best = tl.max(tops, 0)
    mass = tl.load(mass_ptr + row * CHUNKS + c, mask=c < CHUNKS, other=0.0)
    mass *= tl.exp((tops - best).to(tl.float32)).to(tl.float64)
    ends = tl.cumsum(mass, 0)
    point = tl.load(u_ptr + row) * tl.sum(mass, 0)
    t = tl.load(temperature_ptr + row)
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
    place = tl.minimum(tl.sum((ends <= point).to(tl.int32), 0), final)
    place = tl.where(t > 0, place, tl.argmax(x, 0))
    tl.store(out_ptr + row, (chunk * CHUNK + place).to(tl.int64))


def choose(scores: torch.Tensor, temperatures: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """A token for each row, (N, V) -> (N,): the point u of [0, 1) on the line of its masses.

    temperatures (N,) in float32, 0 for the best token; u (N,) in float64. As `sample` does with
    scores that nothing but a temperature has processed.
    """
    N, V = scores.shape
    chunks = triton.cdiv(V, CHUNK)
    top = scores.new_empty(N, chunks, dtype=torch.float32)
    mass = scores.new_empty(N, chunks, dtype=torch.float64)
    out = scores.new_empty(N, dtype=torch.int64)
    mass_kernel[(N, chunks)](scores, temperatures, top, mass, V, chunks, CHUNK, num_warps=8)
    wide = triton.next_power_of_2(chunks)
    draw_kernel[(N,)](scores, temperatures, u, top, mass, out, V, chunks, wide, CHUNK, num_warps=8)
    return out
