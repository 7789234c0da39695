"""RoPE on q and k, and k and v written to the pool, in one pass.

Built in the book: day22. Edit there, then run book/tangle.py.
"""

import torch
import triton
import triton.language as tl

from nanoserve.kernels.launch import early, let_next, refuse_gaps, wait_ahead


@triton.jit
def rope_kernel(
    qkv_ptr, cos_ptr, sin_ptr, position_ptr, slot_ptr, q_ptr, k_ptr, v_ptr,
    K: tl.constexpr, G: tl.constexpr, HEADS: tl.constexpr,
    D: tl.constexpr, HALF: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """A token and a KV head: its queries and key turn; k, v are kept."""
    token, kv = tl.program_id(0).to(tl.int64), tl.program_id(1)
    h, i = tl.arange(0, HEADS), tl.arange(0, HALF)  # G queries, the key
    real = (h < G + 1)[:, None] & (i < D // 2)[None, :]
    head = tl.where(h < G, kv * G + h, K * G + kv)
    let_next(PDL)
    wait_ahead(PDL)
    row = qkv_ptr + token * ((G + 2) * K * D)
    source = row + head[:, None] * D + i[None, :]  # (HEADS, HALF)
    a = tl.load(source, mask=real, other=0.0)
    b = tl.load(source + D // 2, mask=real, other=0.0)
    turn = tl.load(position_ptr + token) * (D // 2) + i
    cos = tl.load(cos_ptr + turn, mask=i < D // 2, other=0.0)[None, :]
    sin = tl.load(sin_ptr + turn, mask=i < D // 2, other=0.0)[None, :]
    first = a * cos - b * sin  # in float32, as cos is
    second = b * cos + a * sin
    slot = tl.load(slot_ptr + token).to(tl.int64) * K + kv
    query = q_ptr + (token * (K * G) + head)[:, None] * D + i[None, :]
    key = k_ptr + slot * D + i[None, :] + 0 * h[:, None]  # in each row
    target = tl.where((h < G)[:, None], query, key)
    tl.store(target, first.to(a.dtype), mask=real)
    tl.store(target + D // 2, second.to(a.dtype), mask=real)
    d = tl.arange(0, 2 * HALF)
    value = row + ((G + 1) * K + kv) * D + d
    v = tl.load(value, mask=d < D, other=0.0)
    tl.store(v_ptr + slot * D + d, v, mask=d < D)


def rope_write(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> torch.Tensor:
    """q turned, (T, H, D); k turned and v go to their slots of a pool.

    qkv is (T, (H + 2 K) D): all queries, all keys, all values. cos and
    sin are tables (positions, D / 2) in float32; positions and slots
    are (T,), integers; keys and values are a layer's, (slots, K, D).
    """
    refuse_gaps(qkv=qkv, cos=cos, sin=sin, keys=keys, values=values)
    refuse_gaps(positions=positions, slots=slots)
    T, (_, K, D) = len(qkv), keys.shape
    G = qkv.shape[1] // (K * D) - 2
    q = qkv.new_empty(T, K * G, D)
    half = triton.next_power_of_2(D // 2)
    heads = triton.next_power_of_2(G + 1)
    rope_kernel[(T, K)](
        qkv, cos, sin, positions, slots, q, keys, values, K, G, heads, D,
        half, num_warps=1, **early(),
    )  # fmt: skip
    return q
