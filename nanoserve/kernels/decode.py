"""One token for each of a few texts, at the speed at which the weights can be read.

Every kernel first asks for its own weights and then waits for the kernel before it, so that memory
never rests: Hopper's programmatic dependent launch, PDL here.
"""

from functools import partial

import torch
import triton
import triton.language as tl

from nanoserve.engine.pool import KVPool
from nanoserve.kernels.attention import LOG2E
from nanoserve.kernels.fused import FusedLlama
from nanoserve.kernels.launch import early, let_next, wait_ahead


@triton.jit
def begin_kernel(
    told_ptr, newest_ptr, embed_ptr, x_ptr, C: tl.constexpr, C2: tl.constexpr, PDL: tl.constexpr
):
    """A text: the embedding of its newest token."""
    let_next(PDL)
    wait_ahead(PDL)
    b, c = tl.program_id(0), tl.arange(0, C2)
    token = tl.load(newest_ptr + tl.load(told_ptr + b))
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
    x_ptr, gain_ptr, w_ptr, cos_ptr, sin_ptr, told_ptr, table_ptr, q_ptr, k_ptr, v_ptr,
    eps, MOST, WIDTH,
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
        row, place = tl.load(told_ptr + b), tl.load(told_ptr + MOST + b)
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
def attend_kernel(
    q_ptr, k_ptr, v_ptr, told_ptr, table_ptr, out_ptr, top_ptr, total_ptr, scale, MOST, WIDTH,
    K: tl.constexpr, G: tl.constexpr, D: tl.constexpr, D2: tl.constexpr, S: tl.constexpr,
    SIZE: tl.constexpr, PARTS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The G queries of a text that share a KV head, and one of PARTS parts of its keys."""
    let_next(PDL)
    b, kv, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    g, d, s = tl.arange(0, 16), tl.arange(0, D2), tl.arange(0, S)
    real = (g < G)[:, None] & (d < D)[None, :]
    at = (b * K + kv) * G + g
    table = table_ptr + tl.load(told_ptr + b) * WIDTH
    length = (tl.load(told_ptr + MOST + b) + 1).to(tl.int32)
    each = tl.cdiv(tl.cdiv(length, S), PARTS) * S
    end = tl.minimum(length, (part + 1) * each)
    wait_ahead(PDL)
    q = tl.load(q_ptr + at[:, None] * D + d[None, :], mask=real, other=0.0)
    top = tl.full((16,), -float("inf"), tl.float32)
    total, mix = tl.zeros((16,), tl.float32), tl.zeros((16, D2), tl.float32)
    for start in range(part * each, end, S):
        key = start + s
        there = key < end
        block = tl.load(table + key // SIZE, mask=there, other=0).to(tl.int64)
        slot = ((block * SIZE + key % SIZE) * K + kv) * D
        k = tl.load(
            k_ptr + slot[None, :] + d[:, None], mask=there[None, :] & (d < D)[:, None], other=0.0
        )
        v = tl.load(
            v_ptr + slot[:, None] + d[None, :], mask=there[:, None] & (d < D)[None, :], other=0.0
        )
        scores = tl.dot(q, k, input_precision="ieee") * scale
        scores = tl.where(there[None, :], scores, -float("inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        weights, fade = tl.exp2(scores - higher[:, None]), tl.exp2(top - higher)
        total = total * fade + tl.sum(weights, 1)
        mix = mix * fade[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        top = higher
    if PARTS == 1:
        mix /= total[:, None]
    else:
        at = at * PARTS + part
        tl.store(top_ptr + at, top, mask=g < G)
        tl.store(total_ptr + at, total, mask=g < G)
    tl.store(out_ptr + at[:, None] * D + d[None, :], mix.to(out_ptr.dtype.element_ty), mask=real)


@triton.jit
def merge_kernel(
    part_ptr, top_ptr, total_ptr, out_ptr, D: tl.constexpr, D2: tl.constexpr, PARTS: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """A query and a head: the mix of all parts."""
    let_next(PDL)
    wait_ahead(PDL)
    row, p, d = tl.program_id(0), tl.arange(0, PARTS), tl.arange(0, D2)
    top, total = tl.load(top_ptr + row * PARTS + p), tl.load(total_ptr + row * PARTS + p)
    weight = tl.exp2(top - tl.max(top, 0))
    at = part_ptr + (row * PARTS + p)[:, None] * D + d[None, :]
    mix = tl.sum(tl.load(at, mask=(d < D)[None, :], other=0.0) * weight[:, None], 0)
    mix /= tl.sum(total * weight, 0)
    tl.store(out_ptr + row * D + d, mix.to(out_ptr.dtype.element_ty), mask=d < D)


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
        self.x, self.q = make(self.C), make(self.H * self.D)
        self.mix, self.act, self.out = make(self.H * self.D), make(self.F), make(self.V)

    def scores(
        self, B: int, told: torch.Tensor, newest: torch.Tensor, tables: torch.Tensor, short: bool
    ) -> torch.Tensor:
        """One more token for B texts: (B, V).

        told (2, most) has each text's row of `newest` and `tables`, and how many of its tokens are
        in the pool. `short`: their keys are not cut into parts.
        """
        m, C, F, V, H, K, D = self.model, self.C, self.F, self.V, self.H, self.K, self.D
        pdl, eps, C2, D2 = early(), m.eps, power(C), power(D)
        parts, S = (1, 64) if short else (32, 32)
        most, width, size = told.stride(0), tables.stride(0), self.pool.block_size
        top = total = part = self.mix
        if parts > 1:
            made = partial(torch.empty, dtype=torch.float32, device=self.x.device)
            part, top, total = made(B, H, parts, D), made(B, H, parts), made(B, H, parts)
        begin_kernel[(B,)](told, newest, m.model.embed.weight, self.x, C, C2, num_warps=4, **pdl)
        for i, block in enumerate(m.model.blocks):
            k, v, P = self.pool.k[i], self.pool.v[i], min(8, D // 2)
            qkv_kernel[((H + 2 * K) * (D // 2 // P),)](
                self.x, block.attn_norm.weight, m.qkv[i], m.cos, m.sin, told, tables, self.q, k, v,
                eps, most, width, B, C, C2, H, K, D, P, size, num_warps=4, **pdl)  # fmt: skip
            attend_kernel[(B, K, parts)](
                self.q, k, v, told, tables, part, top, total, D**-0.5 * LOG2E, most, width,
                K, H // K, D, D2, S, size, parts, num_warps=4, **pdl)  # fmt: skip
            if parts > 1:
                merge_kernel[(B * H,)](part, top, total, self.mix, D, D2, parts, num_warps=1, **pdl)
            self.add(B, self.mix, block.attn.o_proj.weight, 8, 4)
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
