"""One token for each of a few texts, as fast as weights can be read.

Every kernel asks for its own weights first and waits for the kernel
before it then, so that memory never rests: programmatic dependent
launch, PDL here.

Built in the book: day25. Edit there, then run book/tangle.py.
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
def read_once(at, real):
    """Weights, which nobody wants again before the next token."""
    return tl.load(at, mask=real, other=0.0, eviction_policy="evict_first")


@triton.jit
def add_kernel(
    a_ptr, w_ptr, x_ptr, B: tl.constexpr, N: tl.constexpr,
    N2: tl.constexpr, C: tl.constexpr, R: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """R rows of a matrix (C, N), for all B texts: x += w a."""
    r, n = tl.program_id(0) * R + tl.arange(0, R), tl.arange(0, N2)
    at = w_ptr + r[:, None].to(tl.int64) * N + n[None, :]
    real = (r < C)[:, None] & (n < N)[None, :]
    w = read_once(at, real)  # (R, N2), on its way
    let_next(PDL)
    wait_ahead(PDL)
    for b in tl.static_range(B):
        a = tl.load(a_ptr + b * N + n, mask=n < N, other=0.0)
        x = tl.load(x_ptr + b * C + r, mask=r < C, other=0.0)
        x += tl.sum(w * a.to(tl.float32)[None, :], 1).to(x.dtype)
        tl.store(x_ptr + b * C + r, x, mask=r < C)


@triton.jit
def normed(x_ptr, gain, eps, C: tl.constexpr, C2: tl.constexpr):
    """A row's RMSNorm in float32, rounded where the plain one rounds."""
    c = tl.arange(0, C2)
    x = tl.load(x_ptr + c, mask=c < C, other=0.0)
    h = x.to(tl.float32)
    h *= tl.rsqrt(tl.sum(h * h, 0) / C + eps)  # C, without the padding
    return (h.to(x.dtype) * gain).to(tl.float32)


@triton.jit
def gate_up_kernel(
    x_ptr, gain_ptr, w_ptr, out_ptr, eps, B: tl.constexpr,
    C: tl.constexpr, C2: tl.constexpr, F: tl.constexpr, R: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """R channels, of all B texts: norm, both products, silu(gate) * up."""
    r, c = tl.program_id(0) * R + tl.arange(0, R), tl.arange(0, C2)
    real = (r < F)[:, None] & (c < C)[None, :]
    at = w_ptr + r[:, None].to(tl.int64) * C + c[None, :]
    gate, up = read_once(at, real), read_once(at + F * C, real)
    gain = tl.load(gain_ptr + c, mask=c < C, other=0.0)
    let_next(PDL)
    wait_ahead(PDL)
    for b in tl.static_range(B):
        h = normed(x_ptr + b * C, gain, eps, C, C2)[None, :]
        one = tl.sum(gate * h, 1).to(gain.dtype).to(tl.float32)
        two = tl.sum(up * h, 1).to(gain.dtype)
        silu = (one / (1 + tl.exp(-one))).to(gain.dtype)
        tl.store(out_ptr + b * F + r, silu * two, mask=r < F)


@triton.jit
def qkv_kernel(
    x_ptr, gain_ptr, w_ptr, cos_ptr, sin_ptr, span_ptr, table_ptr,
    q_ptr, k_ptr, v_ptr, eps, N, WIDTH, B: tl.constexpr, C: tl.constexpr,
    C2: tl.constexpr, H: tl.constexpr, K: tl.constexpr, D: tl.constexpr,
    P: tl.constexpr, SIZE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """P pairs of a head, of all B texts; k and v go to the pool."""
    half: tl.constexpr = D // 2
    each: tl.constexpr = half // P  # programs of a head
    head, c = tl.program_id(0) // each, tl.arange(0, C2)
    i = tl.program_id(0) % each * P + tl.arange(0, P)
    real = (c < C)[None, :]
    at = w_ptr + (head * D + i)[:, None].to(tl.int64) * C + c[None, :]
    first, second = read_once(at, real), read_once(at + half * C, real)
    gain = tl.load(gain_ptr + c, mask=c < C, other=0.0)
    let_next(PDL)
    wait_ahead(PDL)
    for b in tl.static_range(B):
        place = tl.load(span_ptr + 2 * N + b)
        row = tl.load(span_ptr + 3 * N + b)
        h = normed(x_ptr + b * C, gain, eps, C, C2)[None, :]
        one = tl.sum(first * h, 1).to(gain.dtype).to(tl.float32)
        two = tl.sum(second * h, 1).to(gain.dtype).to(tl.float32)
        if head < H + K:  # v does not turn
            cos = tl.load(cos_ptr + place * half + i)
            sin = tl.load(sin_ptr + place * half + i)
            one, two = one * cos - two * sin, two * cos + one * sin
        block = tl.load(table_ptr + row * WIDTH + place // SIZE)
        slot = block.to(tl.int64) * SIZE + place % SIZE
        out = q_ptr + (b * H + head) * D + i
        if head >= H:
            out = k_ptr + (slot * K + head - H) * D + i
        if head >= H + K:
            out = v_ptr + (slot * K + head - H - K) * D + i
        tl.store(out, one.to(gain.dtype))
        tl.store(out + half, two.to(gain.dtype))


@triton.jit
def begin_kernel(
    span_ptr, N, newest_ptr, embed_ptr, x_ptr, C: tl.constexpr,
    C2: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """A text: the embedding of its newest token."""
    let_next(PDL)
    wait_ahead(PDL)
    b, c = tl.program_id(0), tl.arange(0, C2)
    token = tl.load(newest_ptr + tl.load(span_ptr + 3 * N + b))
    x = tl.load(embed_ptr + token * C + c, mask=c < C)
    tl.store(x_ptr + b * C + c, x, mask=c < C)


@triton.jit
def head_kernel(
    x_ptr, gain_ptr, w_ptr, out_ptr, eps, V, B: tl.constexpr,
    C: tl.constexpr, C2: tl.constexpr, R: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """R tokens' scores, for all B texts: the final norm, and the head."""
    r, c = tl.program_id(0) * R + tl.arange(0, R), tl.arange(0, C2)
    at = w_ptr + r[:, None].to(tl.int64) * C + c[None, :]
    real = (r < V)[:, None] & (c < C)[None, :]
    w = read_once(at, real)
    gain = tl.load(gain_ptr + c, mask=c < C, other=0.0)
    let_next(PDL)
    wait_ahead(PDL)
    for b in tl.static_range(B):
        h = normed(x_ptr + b * C, gain, eps, C, C2)[None, :]
        score = tl.sum(w * h, 1).to(gain.dtype)
        tl.store(out_ptr + b * V + r, score, mask=r < V)


def power(n: int) -> int:
    """The next power of 2, and 16 at least."""
    return max(16, triton.next_power_of_2(n))


def pairs(D: int) -> int:
    """RoPE's pairs in a program: a power of 2 that divides D / 2."""
    half = D // 2
    return min(8, half & -half)


class FewTexts:
    """Scores of one more token for B texts, B from 1 to `most`.

    A compiled path for each B. The scores lie in memory of its own, and
    are good until the next call.
    """

    def __init__(self, model: FusedLlama, pool: KVPool, most: int):
        self.model, self.pool = model, pool
        c = model.model.config
        self.C, self.F = c.hidden_size, c.intermediate_size
        self.H, self.K = c.num_attention_heads, c.num_key_value_heads
        self.D, self.V = c.head_dim, c.vocab_size
        make = partial(model.model.embed.weight.new_empty, most)
        self.x, self.q = make(self.C), make(self.H, self.D)
        self.act, self.out = make(self.F), make(self.V)

    def scores(self, reading: Reading, newest: torch.Tensor, short: bool) -> torch.Tensor:
        """One more token for B texts, of one query each: (B, V).

        `newest` has a token for each row of the reading's tables.
        `short`: a text's keys are not cut into parts.
        """
        B, size, pdl = len(reading.tiles), self.pool.block_size, early()
        if len(self.x) < B:
            raise ValueError(f"{B} texts, and room for {len(self.x)}: FewTexts(most=)")
        C, D, H, K, m = self.C, self.D, self.H, self.K, self.model
        C2, P, eps = power(C), pairs(D), m.eps
        spans, tables = reading.spans, reading.tables
        N, width = spans.stride(0), tables.stride(0)
        parts, tile = (1, 64) if short else (32, 32)
        begin_kernel[(B,)](
            spans, N, newest, m.model.embed.weight, self.x, C, C2,
            num_warps=4, **pdl,
        )  # fmt: skip
        for i, block in enumerate(m.model.blocks):
            k, v = self.pool.k[i], self.pool.v[i]
            qkv_kernel[((H + 2 * K) * (D // 2 // P),)](
                self.x, block.attn_norm.weight, m.qkv[i], m.cos, m.sin,
                spans, tables, self.q, k, v, eps, N, width,
                B, C, C2, H, K, D, P, size, num_warps=4, **pdl,
            )  # fmt: skip
            q = self.q[:B]
            mix = paged_attention(q, k, v, reading, size, parts, 0, tile)
            self.add(B, mix, block.attn.o_proj.weight, 8, 4)
            gate_up_kernel[(triton.cdiv(self.F, 2),)](
                self.x, block.mlp_norm.weight, m.gate_up[i], self.act,
                eps, B, C, C2, self.F, 2, num_warps=4, **pdl,
            )  # fmt: skip
            self.add(B, self.act, block.mlp.down_proj.weight, 4, 8)
        head_kernel[(triton.cdiv(self.V, 4),)](
            self.x, m.model.norm.weight, m.head, self.out, eps, self.V,
            B, C, C2, 4, num_warps=4, **pdl,
        )  # fmt: skip
        return self.out[:B]

    def add(
        self,
        B: int,
        a: torch.Tensor,
        weight: torch.Tensor,
        R: int,
        warps: int,
    ) -> None:
        """x += weight a, by R rows a program."""
        C, N = weight.shape
        add_kernel[(triton.cdiv(C, R),)](
            a, weight, self.x, B, N, power(N), C, R,
            num_warps=warps, **early(),
        )  # fmt: skip
