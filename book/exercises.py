"""Exercises whose cell would give the answer away: what is right, and what is said of a wrong one.

from answers import check
from exercises import odd_width

check(answer, **odd_width(hidden_size=4096))
"""

import math
from typing import Any

import torch
from hunts import line_of as line_of  # which notebooks find here


def slow_clocks(theta: float, pairs: int, context: int) -> dict[str, Any]:
    """How many of RoPE's pairs finish no turn in the context: Day 4."""
    speeds = theta ** (-torch.arange(pairs) / pairs)
    right = (context * speeds < 2 * math.pi).sum().item()
    radians = (context * speeds < 1).sum().item()
    wrong = {
        pairs - right: "so many do finish a turn",
        radians: "a turn is 2 pi radians, not 1",
    }
    otherwise = f"a turn takes 2 pi / w_i tokens: for how many i over {context:,}?"
    return {"right": right, "wrong": wrong, "otherwise": otherwise}


def odd_width(hidden_size: int) -> dict[str, Any]:
    """Two thirds of four times the width, up to a multiple of 256: Day 5."""
    plain = 4 * hidden_size

    def wrong(n: int) -> str:
        if n % 256:
            return "that is no multiple of 256"
        down = "round up, not down"
        return down if 3 * n < 2 * plain else "a smaller multiple of 256 is enough"

    return {"right": -(-2 * plain // (3 * 256)) * 256, "wrong": wrong}


def survivors(heads: int, kv_heads: int) -> dict[str, Any]:
    """Query heads that read their own KV head where these are tiled: Day 6."""
    groups = heads // kv_heads
    reads = {h: (h // groups, h % kv_heads) for h in range(heads)}
    wrong = {
        h: f"head {h} should read KV head {own}, and tiled it reads {tiled}"
        for h, (own, tiled) in reads.items()
        if own != tiled
    }
    return {"right": reads.keys() - wrong.keys(), "wrong": wrong}


def small_margins(margin: torch.Tensor, steps: float) -> dict[str, Any]:
    """How many margins are below so much: Day 8."""
    right = (margin < steps).sum().item()
    return {"right": right, "wrong": lambda n: "too many" if n > right else "too few"}


def nucleus(p: list[float], top_p: float) -> dict[str, Any]:
    """How many of these probabilities, largest first, top-p keeps, and their sum: Day 9."""
    before = [sum(p[:i]) for i in range(len(p))]
    kept = sum(b < top_p for b in before)
    short = {
        (kept - 1, sum(p[: kept - 1])): f"that is below {top_p}: which token crosses the line?",
        (kept, top_p): "the number is right: add up what these tokens hold",
    }
    otherwise = f"a token is kept while the mass before it is below {top_p}"
    return {"right": (kept, sum(p[:kept])), "wrong": short, "otherwise": otherwise}


def cache_as_heavy(config, dtype: torch.dtype) -> dict[str, Any]:
    """The number of tokens whose cache weighs what the model does: Day 10."""
    per_token = config.kv_cache_bytes_per_token(dtype)
    right = dtype.itemsize * config.num_parameters / per_token

    def wrong(n: float) -> str:
        if abs(n / right - 2) < 0.02:
            return "twice as many: count K and V both, and two bytes a weight"
        return "too many" if n > right else "too few"

    return {"right": right, "wrong": wrong}


def norm_bytes(seen: list[tuple[str, int]], row: torch.Tensor) -> dict[str, Any]:
    """Bytes of a row's norm with its residual, by the operations counted and fused: Day 22."""
    eager, n = sum(size for _, size in seen), row.nbytes

    def wrong(said: tuple) -> str:
        eager_said, fused_said = said
        if abs(fused_said - 4 * n) < n / 9:
            return "the kernel writes two results" if eager_said else ""
        missing = eager - 3 * n
        return "the addition is an operation too" if abs(eager_said - missing) < n / 9 else ""

    return {"right": (eager, 5 * n), "wrong": wrong}


def padding(sizes: list[int]) -> dict[str, float]:
    """Rows that are nobody's, for every number of texts that the largest graph holds: Day 24."""
    more = [min(s for s in sizes if s >= n) - n for n in range(1, max(sizes) + 1)]
    return {"worst": max(more), "mean": sum(more) / len(more)}


def freed_in_order() -> dict[str, Any]:
    """The queue of eight blocks after two texts have ended: Day 15."""
    wrong = {
        (0, 1, 2, 3, 4): "the tail of a table goes first",
        (4, 3, 2, 1, 0): "by the order in which they were freed",
    }
    return {"right": [2, 1, 0, 4, 3], "wrong": wrong}


def blocks_after(prompts: tuple[int, ...], size: int) -> dict[str, Any]:
    """Blocks of texts that have read their prompts, and one token more: Day 14."""
    alone = tuple(-(-n // size) for n in prompts)
    wrong = {alone: "that is after the prompt alone"}
    wrong[tuple(n + 1 for n in alone)] = "who has room in the last block needs no other"
    return {"right": tuple(-(-(n + 1) // size) for n in prompts), "wrong": wrong}


def nowhere(pool) -> dict[str, Any]:
    """Block and place of the slot that -1 means to torch: Day 14."""
    right = pool.num_blocks - 1, pool.block_size - 1
    return {"right": right, "otherwise": "which slots of `small.k[0]` are no longer 7?"}


def read_anew(before: int, now: int, size: int) -> dict[str, Any]:
    """Tokens of a prompt that are read, where the one `before` is its beginning: Day 18."""
    found = before // size * size
    wrong = {
        now - before: "a hit is a whole number of blocks",
        found: "so many are found, and the others are read",
        1: "what the last turn added has never been read",
    }
    otherwise = "how many whole blocks does the prompt before fill?"
    return {"right": now - found, "wrong": wrong, "otherwise": otherwise}


def found_by_hand(shared: int, length: int, again: int, size: int) -> dict[str, Any]:
    """Found and read of `length` tokens, some `shared`; read of `again`, all known: Day 18."""
    found, most = shared // size * size, (again - 1) // size * size
    wrong = {(shared, length - shared, 1): "a hit is a whole number of blocks"}
    wrong |= {(found, length - found, n): "somebody must be read, for the scores" for n in (0, 1)}
    otherwise = "whole blocks, and somebody must be read, for the scores"
    return {"right": [found, length - found, again - most], "wrong": wrong, "otherwise": otherwise}


def floor_of(parameters: int, bandwidth: float) -> dict[str, Any]:
    """Milliseconds a token at one byte a weight: Day 25."""
    right = 1e3 * parameters / bandwidth

    def wrong(ms: float) -> str:
        if abs(ms / right - 2) < 0.1:
            return "that is with two bytes a weight"
        return "milliseconds are wanted" if not 0.01 < ms < 100 else ""

    return {"right": right, "wrong": wrong, "within": 0.02}


def one_row_each(config, needed: float, processors: int) -> dict[str, Any]:
    """Programs of one row of qkv, and how many a processor must hold at once: Day 25."""
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    row = 2 * config.hidden_size  # bytes
    at_once = math.ceil(needed / processors / row)
    otherwise = f"{heads} heads of {config.head_dim} rows; a row has {row:,} bytes"
    close = {(heads * config.head_dim, at_once - 1): "a little less than is needed: round up"}
    return {"right": (heads * config.head_dim, at_once), "wrong": close, "otherwise": otherwise}


def believed(parameters: float, bandwidth: float, told: float) -> dict[str, Any]:
    """The most tokens a second of one text in bf16, and whether a report can be true: Day 26."""
    right = bandwidth / (2 * parameters)
    otherwise = "every weight is read once a token, and bf16 has two bytes: what is the most?"
    wrong = {(2 * right, can): "bf16 has two bytes" for can in ("yes", "no")}
    wrong |= {(right, "yes"): "compare it with the most", (right, "no"): "compare it with the most"}
    can = "yes" if told <= right else "no"
    return {"right": (right, can), "wrong": wrong, "otherwise": otherwise, "within": 0.01}
