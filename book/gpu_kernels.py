"""The card's memory and each kernel by itself, beside torch's own operations: for bench_gpu.py."""

import torch
import triton
import triton.language as tl
from gpu_clock import DEVICE, ON_A_GPU, host_microseconds, microseconds
from torch.nn import functional as F

from nanoserve.kernels.attention import paged_attention, reading
from nanoserve.kernels.mlp import silu_mul
from nanoserve.kernels.norm import rms_norm
from nanoserve.kernels.rope import rope_write
from nanoserve.layers import RMSNorm, apply_rope, causal_attention, rope_table
from nanoserve.model import Llama

ROWS = (1, 32, 256, 8192) if ON_A_GPU else (1, 3)
ATTENTION = (
    [(1, 512), (1, 1024), (1, 4096), (1, 16384), (8, 1024), (32, 1024), (256, 1024)]
    if ON_A_GPU
    else [(2, 40)]
)
PARTS = (1, 2, 4, 8, 16, 32) if ON_A_GPU else (1, 2)
PROMPT = 4096 if ON_A_GPU else 20


@triton.jit
def add_kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    """The first program of every tutorial: out = a + b."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = i < n
    tl.store(out_ptr + i, tl.load(a_ptr + i, there) + tl.load(b_ptr + i, there), there)


def memory(model: Llama, found: dict) -> None:
    """How fast the card copies and reads, and sums of two vectors of growing length."""
    big = torch.empty(2**31 if ON_A_GPU else 2**10, dtype=torch.uint8, device=DEVICE)
    other, floats = torch.empty_like(big), big.view(torch.float32).normal_()
    found["copy GB/s"] = 2e-3 * big.numel() / microseconds(lambda: other.copy_(big))
    found["read GB/s"] = 1e-3 * big.numel() / microseconds(lambda: floats.sum())
    found["add us"] = {}
    for power in range(10, 29, 3) if ON_A_GPU else (10,):
        n = 2**power
        a, b, out = (torch.randn(n, device=DEVICE) for _ in "abo")
        times = 10 if n < 2**24 else 1
        ours = microseconds(
            lambda: add_kernel[(triton.cdiv(n, 1024),)](a, b, out, n, 1024), times=times
        )
        theirs = microseconds(lambda: torch.add(a, b, out=out), times=times)
        found["add us"][n] = {"ours": ours, "torch": theirs, "bytes": 12 * n}


def pair(found: dict, name: str, ours, theirs, moved: int) -> None:
    """Times of both, on the card alone and as the host sees it, and the bytes that must move."""
    found[name] = {
        "bytes": moved,
        "ours": microseconds(ours, times=10),
        "torch": microseconds(theirs, times=10),
        "ours, host": host_microseconds(ours),
        "torch, host": host_microseconds(theirs),
    }


def small(model: Llama, found: dict) -> None:
    """Norm, RoPE with the write to the pool, and silu(gate) * up, by rows."""
    config, weight = model.config, model.embed.weight
    C, inner, D = config.hidden_size, config.intermediate_size, config.head_dim
    H, K, size = config.num_attention_heads, config.num_key_value_heads, weight.itemsize
    made = {"dtype": weight.dtype, "device": DEVICE}
    norm, tables = model.norm, rope_table(config, torch.arange(20_000, device=DEVICE))
    halves = [t[:, : D // 2].contiguous() for t in tables]
    keys, values = (torch.randn(20_000, K, D, **made) for _ in "kv")
    for T in ROWS:
        x, delta = torch.randn(T, C, **made), torch.randn(T, C, **made) / 100
        pair(
            found, f"norm {T}",
            lambda: rms_norm(x, norm.weight, norm.eps, delta),
            lambda: norm(x.add_(delta)),
            (4 * T * C + C) * size,
        )  # fmt: skip
        qkv, places = torch.randn(T, (H + 2 * K) * D, **made), torch.arange(T, device=DEVICE)
        slots = torch.randperm(20_000, device=DEVICE)[:T]

        def plain_rope():
            q, k, v = qkv.split([H * D, K * D, K * D], -1)
            cos, sin = (t[places] for t in tables)
            q = apply_rope(q.view(1, T, H, D).transpose(1, 2), cos, sin)
            k = apply_rope(k.view(1, T, K, D).transpose(1, 2), cos, sin)
            keys[slots], values[slots] = k[0].transpose(0, 1), v.view(T, K, D)
            return q

        pair(
            found, f"rope {T}",
            lambda: rope_write(qkv, *halves, places, slots, keys, values),
            plain_rope,
            T * (2 * (H + 2 * K) * D * size + 4 * D),
        )  # fmt: skip
        both = torch.randn(T, 2 * inner, **made)

        def plain_mlp():
            gate, up = both.chunk(2, -1)
            return F.silu(gate) * up

        pair(found, f"mlp {T}", lambda: silu_mul(both), plain_mlp, 3 * T * inner * size)
    found["errors"] = small_errors()


def small_errors() -> dict:
    """The largest error of both from float64, in the card's dtype, on the same numbers."""
    found, kind = {}, torch.bfloat16 if ON_A_GPU else torch.float32
    x = torch.randn(256, 2048, device=DEVICE).to(kind) * 3
    norm = RMSNorm(2048, 1e-5).to(DEVICE, kind)
    norm.weight.data.uniform_(0.5, 1.5)
    wide = x.double()
    exact = wide * (wide.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt() * norm.weight.double()
    found["norm"] = apart(exact, rms_norm(x.clone(), norm.weight, 1e-5), norm(x))
    gate, up = x.chunk(2, -1)
    wide = gate.double()
    exact = wide * wide.sigmoid() * up.double()
    found["mlp"] = apart(exact, silu_mul(x), F.silu(gate) * up)
    return found


def apart(exact: torch.Tensor, ours: torch.Tensor, theirs: torch.Tensor) -> dict:
    """Largest and mean distance of both from what is exact."""
    off = {"ours": (ours.double() - exact).abs(), "torch": (theirs.double() - exact).abs()}
    return {who: {"max": e.max().item(), "mean": e.mean().item()} for who, e in off.items()}


def attention(model: Llama, found: dict) -> None:
    """Decode at several batches and contexts, by parts; a prompt; errors."""
    config, weight = model.config, model.embed.weight
    D, H, K = config.head_dim, config.num_attention_heads, config.num_key_value_heads
    made, size = {"dtype": weight.dtype, "device": DEVICE}, 16
    found["decode"] = {}
    for B, context in ATTENTION:
        layers, width = (4 if B >= 32 else 16), -(-context // size)
        pools = [[torch.randn(B * width * size, K, D, **made) for _ in "kv"] for _ in range(layers)]
        tables = torch.randperm(B * width, device=DEVICE).int().view(B, width)
        which = reading(tables, [(1, context - 1, b) for b in range(B)], H // K)
        slots = (tables.long()[:, :, None] * size + torch.arange(size, device=DEVICE)).flatten(1)
        q = torch.randn(B, H, D, **made)

        def plain(k, v):
            past = (x[slots[:, :context]].transpose(1, 2) for x in (k, v))  # (B, K, S, D)
            return F.scaled_dot_product_attention(q[:, :, None], *past, enable_gqa=True)

        told = {"bytes": 2 * B * context * K * D * weight.itemsize, "parts": {}}
        for parts in PARTS:
            if parts > 1 and B >= 256:
                continue
            calls = [
                lambda k=k, v=v, parts=parts: paged_attention(q, k, v, which, size, parts)
                for k, v in pools
            ]
            told["parts"][parts] = microseconds(*calls)
        told["torch"] = microseconds(*(lambda k=k, v=v: plain(k, v) for k, v in pools), repeats=5)
        found["decode"][f"{B} x {context}"] = told
        del pools
    T = PROMPT
    tables = torch.arange(-(-T // size), device=DEVICE).int()[None]
    q, keys, values = (torch.randn(T, n, D, **made) for n in (H, K, K))
    which = reading(tables, [(T, 0, 0)], H // K)
    turned = [x.transpose(0, 1)[None] for x in (q, keys, values)]
    found["prompt"] = {
        "tokens": T,
        "ours": microseconds(lambda: paged_attention(q, keys, values, which, size)),
        "sdpa": microseconds(
            lambda: F.scaled_dot_product_attention(*turned, is_causal=True, enable_gqa=True)
        ),
    }
    T = min(T, 512)  # the scores of the plain one in float64 are written
    which, turned = reading(tables, [(T, 0, 0)], H // K), [x[:, :, :T] for x in turned]
    ours = paged_attention(q[:T], keys, values, which, size)
    exact, theirs = (
        causal_attention(*map(to, turned))[0].transpose(0, 1).flatten(1)
        for to in (torch.Tensor.double, lambda x: x)
    )
    found["errors"] = apart(exact, ours, theirs)
