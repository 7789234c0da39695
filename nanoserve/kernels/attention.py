"""Attention over a pool of pages that never writes the scores.

One kernel for prompts, chunks of them, decode, and all in one row.

Built in the book: day23. Edit there, then run book/tangle.py.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from nanoserve.kernels.launch import early, let_next, wait_ahead

LOG2E = 1.4426950408889634  # e to the s is 2 to the (s * LOG2E)


@triton.jit
def add_tile(top, total, mix, scores, v):
    """A tile of keys more: scores (M, S) for powers of 2, v (S, D).

    Of earlier tiles: top and total (M,), mix (M, D).
    """
    higher = tl.maximum(top, tl.max(scores, 1))
    # Of a query that has seen nothing: -inf less -inf would be NaN.
    base = tl.where(higher == -float("inf"), 0.0, higher)
    weights, fade = tl.exp2(scores - base[:, None]), tl.exp2(top - base)
    total = total * fade + tl.sum(weights, 1)
    mix = mix * fade[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
    return higher, total, mix


@triton.jit(do_not_specialize=["WIDTH", "N"])
def attention_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, top_ptr, total_ptr,
    table_ptr, span_ptr, tile_ptr, scale, WIDTH, N,
    K: tl.constexpr, G: tl.constexpr, D: tl.constexpr,
    D2: tl.constexpr, SIZE: tl.constexpr, Q: tl.constexpr,
    M: tl.constexpr, S: tl.constexpr, PARTS: tl.constexpr,
    EACH: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Q queries of a text, in the G heads of a KV head, and one part
    of its keys, S at a time. M and D2: powers of 2 with room for Q * G
    rows and D numbers."""
    let_next(PDL)
    # 1. Whose queries: the tile names a span and the first token in it.
    tile, kv = tl.program_id(0) // K, tl.program_id(0) % K
    part = tl.program_id(1)
    span = tl.load(tile_ptr + 2 * tile)
    first = tl.load(tile_ptr + 2 * tile + 1)
    row = tl.load(span_ptr + span).to(tl.int64)
    new = tl.load(span_ptr + N + span)
    computed = tl.load(span_ptr + 2 * N + span)
    text = tl.load(span_ptr + 3 * N + span).to(tl.int64)
    table = table_ptr + text * WIDTH
    # 2. The queries: row m is token m // G in the group's head m % G.
    m, d, s = tl.arange(0, M), tl.arange(0, D2), tl.arange(0, S)
    token = first + m // G
    real = (m < Q * G) & (token < new)
    at = (row + token) * (K * G) + kv * G + m % G
    keep = real[:, None] & (d < D)[None, :]
    wait_ahead(PDL)
    q = tl.load(q_ptr + at[:, None] * D + d[None, :], mask=keep, other=0.0)
    # 3. The keys: up to the last query's own, or a part of those.
    sees = computed + token + 1  # (M,), how many keys each query sees
    begin, end = 0, computed + tl.minimum(first + Q, new)
    if PARTS > 1:
        each = EACH if EACH else tl.cdiv(tl.cdiv(end, S), PARTS) * S
        begin, end = part * each, tl.minimum(end, (part + 1) * each)
    # 4. Tile by tile: place, block, slot, as on Day 14; then the scores.
    top = tl.full((M,), -float("inf"), tl.float32)
    total, mix = tl.zeros((M,), tl.float32), tl.zeros((M, D2), tl.float32)
    for start in range(begin, end, S):
        key = start + s  # (S,), places in the text
        there = key < end
        block = tl.load(table + key // SIZE, mask=there, other=0)
        slot = block.to(tl.int64) * SIZE + key % SIZE
        lies = (slot * K + kv) * D
        k = tl.load(
            k_ptr + lies[None, :] + d[:, None], mask=there[None, :] & (d < D)[:, None], other=0.0
        )  # (D2, S)
        v = tl.load(
            v_ptr + lies[:, None] + d[None, :], mask=there[:, None] & (d < D)[None, :], other=0.0
        )  # (S, D2)
        scores = tl.dot(q, k, input_precision="ieee") * scale  # (M, S)
        seen = (key[None, :] < sees[:, None]) & there[None, :]
        scores = tl.where(seen, scores, -float("inf"))
        top, total, mix = add_tile(top, total, mix, scores, v)
    # 5. The mix; of a part, its two sums and what they were scaled to.
    if PARTS > 1:
        at = at * PARTS + part
        tl.store(top_ptr + at, top, mask=real)
        tl.store(total_ptr + at, total, mask=real)
    else:
        mix /= total[:, None]
    mix = mix.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + at[:, None] * D + d[None, :], mix, mask=keep)


@dataclass(frozen=True)
class Reading:
    """Which queries of a packed row read which slots, in int32.

    `tables` (rows, blocks) has the blocks of texts. `spans` (4, N) has
    of each text its first place in the packed row, how many queries,
    how many keys were there before, and its row of `tables`. `tiles`
    (n, 2) cuts the spans into pieces of `queries` tokens: a span, and
    the piece's first query in it.
    """

    tables: torch.Tensor
    spans: torch.Tensor
    tiles: torch.Tensor
    queries: int

    def __post_init__(self):
        """ValueError for what a kernel would read as other numbers."""
        for name in ("tables", "spans", "tiles"):
            x = getattr(self, name)
            # Of one number in a row the stride says nothing.
            in_rows = x.stride(1) == 1 or x.shape[1] < 2
            if x.dtype != torch.int32 or not in_rows:
                raise ValueError(
                    f"{name} must be int32 and lie row by row, not "
                    f"{x.dtype} with strides {x.stride()}; after a "
                    "transpose `.contiguous()` moves the numbers"
                )


def reading(tables: torch.Tensor, spans: list[tuple[int, int, int]], G: int) -> Reading:
    """Of texts (new, computed, row of `tables`), packed in this order."""
    most = max(new for new, _, _ in spans)
    queries = 1 if most == 1 else max(1, 64 // G)
    row, told, tiles = 0, [], []
    for i, (new, computed, table) in enumerate(spans):
        told.append((row, new, computed, table))
        for first in range(0, new, queries):
            keys = computed + min(first + queries, new)
            tiles.append((-keys, i, first))
        row += new
    told = [*zip(*told, strict=True)]
    tiles = [tile for _, *tile in sorted(tiles)]  # most keys first
    told, tiles = (torch.tensor(x, dtype=torch.int32).to(tables.device) for x in (told, tiles))
    return Reading(tables, told, tiles, queries)


def paged_attention(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    reading: Reading,
    block_size: int,
    parts: int = 1,
    each: int = 0,
    tile: int = 0,
) -> torch.Tensor:
    """Each query's mix of its text's values: q (T, H, D) -> (T, H * D).

    keys and values are a layer's pool, (slots, K, D), with the queries'
    own already in it. Where there are few texts it is worth it to cut
    their keys into `parts`, of `each` keys or, if 0, of equal length;
    how depends on nobody else. `tile` keys are read at once: if 0, 128
    in decode and 64 beside a prompt, which changes a text's last bits.
    ValueError for parts that would leave out a text's end.
    """
    (T, H, D), K = q.shape, keys.shape[1]
    width = reading.tables.shape[1]
    if each and parts * each < width * block_size:
        raise ValueError(
            f"{parts} parts of {each} keys leave out the end of a text: "
            f"its {width} blocks of {block_size} hold {width * block_size}"
        )
    G, wide = H // K, triton.next_power_of_2(max(D, 16))
    M = max(16, triton.next_power_of_2(reading.queries * G))
    top = total = out = torch.empty_like(q)
    if parts > 1:
        out = q.new_empty(T * H, parts, D, dtype=torch.float32)
        top, total = (q.new_empty(T * H, parts, dtype=torch.float32) for _ in "tt")
    attention_kernel[(len(reading.tiles) * K, parts)](
        q, keys, values, out, top, total, reading.tables,
        reading.spans, reading.tiles, D**-0.5 * LOG2E,
        reading.tables.stride(0), reading.spans.stride(0),
        K, G, D, wide, block_size, reading.queries, M,
        tile or (128 if M == 16 else 64), parts, each,
        num_warps=4, num_stages=2 if M == 16 else 3, **early(),
    )  # fmt: skip
    if parts > 1:
        parted, out = out, torch.empty_like(q)
        P = triton.next_power_of_2(parts)
        merge_kernel[(T * H,)](
            parted, top, total, out, parts, P, D, wide,
            num_warps=1, **early(),
        )  # fmt: skip
    return out.view(T, H * D)


@triton.jit
def merge_kernel(
    part_ptr, top_ptr, total_ptr, out_ptr,
    PARTS: tl.constexpr, P: tl.constexpr, D: tl.constexpr,
    D2: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """A query and a head: the parts' sums, scaled to the highest top."""
    row = tl.program_id(0).to(tl.int64)
    p, d = tl.arange(0, P), tl.arange(0, D2)
    let_next(PDL)
    wait_ahead(PDL)
    there = p < PARTS
    top = tl.load(top_ptr + row * PARTS + p, mask=there, other=-float("inf"))
    total = tl.load(total_ptr + row * PARTS + p, mask=there, other=0.0)
    weight = tl.exp2(top - tl.max(top, 0))  # of an empty part: 0
    at = row * PARTS + p
    parts = tl.load(
        part_ptr + at[:, None] * D + d[None, :], mask=there[:, None] & (d < D)[None, :], other=0.0
    )  # (P, D2)
    mix = tl.sum(parts * weight[:, None], 0) / tl.sum(total * weight, 0)
    out = mix.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row * D + d, out, mask=d < D)
