"""One token for each of a few texts, at the speed at which the weights can be read.

Every kernel first asks for its own weights and then waits for the kernel before it, so that memory
never rests: Hopper's programmatic dependent launch, PDL here.
"""

from functools import partial

import torch
import triton
import triton.language as tl

from nanoserve.engine.pool import KVPool
from nanoserve.kernels.attention import Reading, paged_attention
from nanoserve.kernels.fused import FusedLlama
from nanoserve.kernels.launch import early, let_next, wait_ahead


@triton.jit
def begin_kernel(
    span_ptr, N, newest_ptr, embed_ptr, x_ptr, C: tl.constexpr, C2: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """A text: the embedding of its newest token."""
    let_next(PDL)
    wait_ahead(PDL)
    b, c = tl.program_id(0), tl.arange(0, C2)
    token = tl.load(newest_ptr + tl.load(span_ptr + 3 * N + b))
    x = tl.load(embed_ptr + token * C + c, mask=c < C)
    tl.store(x_ptr + b * C + c, x, mask=c < C)


@triton.jit
def normed(x_ptr, gain, eps, C: tl.constexpr, C2: tl.constexpr):
    """A row's RMSNorm, in float32, rounded where the plain one rounds."""
    c = tl.arange(0, C2)
    x = tl.load(x_ptr + c, mask=c < C, other=0.0)
    h = x.to(tl.float32)
    h *= tl.rsqrt(tl.sum(h * h, 0) / C + eps)
    return (h.to(x.dtype) * gain).to(tl.float32)


@triton.jit
def qkv_kernel(
    x_ptr, gain_ptr, w_ptr, cos_ptr, sin_ptr, span_ptr, table_ptr, q_ptr, k_ptr, v_ptr,
    eps, N, WIDTH,
    B: tl.constexpr, C: tl.constexpr, C2: tl.constexpr, H: tl.constexpr, K: tl.constexpr,
    D: tl.constexpr, P: tl.constexpr, SIZE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """P pairs of one head, of all B texts: norm, product, RoPE, and k and v to the pool."""
    let_next(PDL)
    half: tl.constexpr = D // 2
    head = tl.program_id(0) // (half // P)
    i, c = tl.program_id(0) % (half // P) * P + tl.arange(0, P), tl.arange(0, C2)
    real = (c < C)[None, :]
    at = w_ptr + (head * D + i)[:, None].to(tl.int64) * C + c[None, :]
    first = tl.load(at, mask=real, other=0.0)
    second = tl.load(at + half * C, mask=real, other=0.0)
    gain = tl.load(gain_ptr + c, mask=c < C, other=0.0)
    wait_ahead(PDL)
    for b in tl.static_range(B):
        place, row = tl.load(span_ptr + 2 * N + b), tl.load(span_ptr + 3 * N + b)
        h = normed(x_ptr + b * C, gain, eps, C, C2)
        one = tl.sum(first * h[None, :], 1).to(gain.dtype).to(tl.float32)
        two = tl.sum(second * h[None, :], 1).to(gain.dtype).to(tl.float32)
        if head < H + K:
            cos, sin = tl.load(cos_ptr + place * half + i), tl.load(sin_ptr + place * half + i)
            one, two = one * cos - two * sin, two * cos + one * sin
        slot = tl.load(table_ptr + row * WIDTH + place // SIZE).to(tl.int64) * SIZE + place % SIZE
        out = q_ptr + (b * H + head) * D + i
        if head >= H:
            out = k_ptr + (slot * K + head - H) * D + i
        if head >= H + K:
            out = v_ptr + (slot * K + head - H - K) * D + i
        tl.store(out, one.to(gain.dtype))
        tl.store(out + half, two.to(gain.dtype))


@triton.jit
def add_kernel(
    a_ptr, w_ptr, x_ptr, B: tl.constexpr, N: tl.constexpr, N2: tl.constexpr, C: tl.constexpr,
    R: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """R rows of a matrix (C, N), for all B texts: x += w a."""
    let_next(PDL)
    r, n = tl.program_id(0) * R + tl.arange(0, R), tl.arange(0, N2)
    at = w_ptr + r[:, None].to(tl.int64) * N + n[None, :]
    w = tl.load(at, mask=(r < C)[:, None] & (n < N)[None, :], other=0.0)
    wait_ahead(PDL)
    for b in tl.static_range(B):
        a = tl.load(a_ptr + b * N + n, mask=n < N, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + b * C + r, mask=r < C, other=0.0)
        x += tl.sum(w * a[None, :], 1).to(x.dtype)
        tl.store(x_ptr + b * C + r, x, mask=r < C)


@triton.jit
def gate_up_kernel(
    x_ptr, gain_ptr, w_ptr, out_ptr, eps, B: tl.constexpr, C: tl.constexpr, C2: tl.constexpr,
    F: tl.constexpr, R: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """R channels, of all B texts: norm, both products, silu(gate) * up."""
    let_next(PDL)
    r, c = tl.program_id(0) * R + tl.arange(0, R), tl.arange(0, C2)
    real = (r < F)[:, None] & (c < C)[None, :]
    at = w_ptr + r[:, None].to(tl.int64) * C + c[None, :]
    gate, up = tl.load(at, mask=real, other=0.0), tl.load(at + F * C, mask=real, other=0.0)
    gain = tl.load(gain_ptr + c, mask=c < C, other=0.0)
    wait_ahead(PDL)
    for b in tl.static_range(B):
        h = normed(x_ptr + b * C, gain, eps, C, C2)[None, :]
        one = tl.sum(gate * h, 1).to(gain.dtype).to(tl.float32)
        two = tl.sum(up * h, 1).to(gain.dtype)
        silu = (one / (1 + tl.exp(-one))).to(gain.dtype)
        tl.store(out_ptr + b * F + r, silu * two, mask=r < F)


@triton.jit
def head_kernel(
    x_ptr, gain_ptr, w_ptr, out_ptr, eps, V, B: tl.constexpr, C: tl.constexpr, C2: tl.constexpr,
    R: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """R tokens' scores, for all B texts: the final norm, and the head."""
    let_next(PDL)
    r, c = tl.program_id(0) * R + tl.arange(0, R), tl.arange(0, C2)
    at = w_ptr + r[:, None].to(tl.int64) * C + c[None, :]
    w = tl.load(at, mask=(r < V)[:, None] & (c < C)[None, :], other=0.0)
    gain = tl.load(gain_ptr + c, mask=c < C, other=0.0)
    wait_ahead(PDL)
    for b in tl.static_range(B):
        h = normed(x_ptr + b * C, gain, eps, C, C2)
        tl.store(out_ptr + b * V + r, tl.sum(w * h[None, :], 1).to(gain.dtype), mask=r < V)


def power(n: int) -> int:
    """The next power of 2, and 16 at least."""
    return max(16, triton.next_power_of_2(n))


class FewTexts:
    """Scores of one more token for B texts, B from 1 to `most`, a compiled path for each."""

    def __init__(self, model: FusedLlama, pool: KVPool, most: int):
        self.model, self.pool, config = model, pool, model.model.config
        self.C, self.F, self.V = config.hidden_size, config.intermediate_size, config.vocab_size
        self.H, self.K, self.D = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        make = partial(model.model.embed.weight.new_empty, most)
        self.x, self.q = make(self.C), make(self.H, self.D)
        self.act, self.out = make(self.F), make(self.V)

    def scores(self, reading: Reading, newest: torch.Tensor, short: bool) -> torch.Tensor:
        """One more token for B texts, of one query each: (B, V).

        `newest` has a token for each row of the reading's tables. `short`: a text's keys are not
        cut into parts.
        """
        m, C, F, V, H, K, D = self.model, self.C, self.F, self.V, self.H, self.K, self.D
        B, pdl, eps, C2, P = len(reading.tiles), early(), m.eps, power(C), min(8, D // 2)
        spans, N, tables = reading.spans, reading.spans.stride(0), reading.tables
        width, size = tables.stride(0), self.pool.block_size
        parts, tile = (1, 64) if short else (32, 32)
        begin_kernel[(B,)](
            spans, N, newest, m.model.embed.weight, self.x, C, C2, num_warps=4, **pdl
        )
        for i, block in enumerate(m.model.blocks):
            k, v = self.pool.k[i], self.pool.v[i]
            qkv_kernel[((H + 2 * K) * (D // 2 // P),)](
                self.x, block.attn_norm.weight, m.qkv[i], m.cos, m.sin, spans, tables, self.q, k, v,
                eps, N, width, B, C, C2, H, K, D, P, size, num_warps=4, **pdl)  # fmt: skip
            mix = paged_attention(self.q[:B], k, v, reading, size, parts, 0, tile)
            self.add(B, mix, block.attn.o_proj.weight, 8, 4)
            gate_up_kernel[(triton.cdiv(F, 2),)](
                self.x, block.mlp_norm.weight, m.gate_up[i], self.act,
                eps, B, C, C2, F, 2, num_warps=4, **pdl)  # fmt: skip
            self.add(B, self.act, block.mlp.down_proj.weight, 4, 8)
        head_kernel[(triton.cdiv(V, 4),)](
            self.x, m.model.norm.weight, m.head, self.out, eps, V, B, C, C2, 4, num_warps=4, **pdl
        )
        return self.out[:B]

    def add(self, B: int, a: torch.Tensor, weight: torch.Tensor, R: int, warps: int) -> None:
        """x += weight a."""
        C, N = weight.shape
        add_kernel[(triton.cdiv(C, R),)](
            a, weight, self.x, B, N, power(N), C, R, num_warps=warps, **early()
        )
