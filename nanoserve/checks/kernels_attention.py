"""The attention kernel held against HuggingFace's eager attention and Day 14's pool: Day 23."""

from pathlib import Path

import torch

from nanoserve.checks.caching import text
from nanoserve.checks.common import BF16, F16, KIND, agree, attempt, holds, must_raise, tells
from nanoserve.checks.kernels_row import DEVICE, Row, drawn, exactly
from nanoserve.checks.law import lawful
from nanoserve.checks.model_loading import load
from nanoserve.comparison import Scoreboard
from nanoserve.config import ModelConfig
from nanoserve.kernels.attention import Reading, paged_attention, reading
from nanoserve.layers import causal_attention

# Of each text: new tokens, and those before. A prompt, a chunk, decode, all in one row.
MIXED = ((1, 0), (5, 0), (1, 20), (3, 16), (18, 2))
# Of a checkpoint: layers, for more take longer to load than to compare, and tokens.
MOST, FEW = 3, 15


def lengths(*ends: int) -> list[tuple[int, int]]:
    """A text of each length, whose last token is new."""
    return [(1, end - 1) for end in ends]


def check_lengths(board: Scoreboard) -> None:
    """Decode at every length from 1 to 40, in tiles of 16; and parts around their ends."""
    row = Row(drawn(lengths(*range(1, 41)), 1, 1, 16, seed=0), 4)
    row.hold(board, "lengths 1 to 40", 1, 0, 16)
    row = Row(drawn(lengths(1, 6, 7, 8, 14, 15, 21), 1, 1, 16, seed=1), 3)
    row.hold(board, "parts of 7 keys", 4, 7, 16)
    row = Row(drawn(lengths(1, 16, 17, 32, 33, 40), 1, 1, 16, seed=2), 16)
    row.hold(board, "parts as long as each other", 3, 0, 16)


def check_rows(board: Scoreboard) -> None:
    """Prompts, chunks and decode in one row: heads, sizes, and queries around their tiles' ends."""
    for K, G, D, size, count in ((2, 3, 20, 3, 5), (1, 8, 16, 1, 5), (2, 1, 128, 16, 2)):
        Row(drawn(MIXED[-count:], K, G, D, seed=size), size).hold(board, "a mixed row")
    ends = ((9, 0), (8, 3), (17, 1), (1, 12))  # tiles of 8 queries
    Row(drawn(ends, 1, 8, 16, seed=3), 4).hold(board, "ends of tiles")
    Row(drawn(((65, 2), (64, 0)), 1, 1, 16, seed=4), 16).hold(board, "ends of tiles")
    Row(drawn(MIXED[1:], 1, 1, 16, seed=5), 3).hold(board, "a mixed row", 4, 8, 16)


def check_plain(board: Scoreboard) -> None:
    """What is simplest, first: a prompt in one tile, more heads; three tiles of keys, and parts."""
    for G, D in ((1, 16), (3, 20)):
        Row(drawn(((3, 0),), 1, G, D, seed=10), 4).hold(board, "a prompt of 3 tokens")
    row = Row(drawn(lengths(40), 1, 1, 16, seed=156), 4)  # its largest score rises with each
    row.hold(board, "one query, three tiles of keys", 1, 0, 16)
    row.hold(board, "one query, three parts of its keys", 3, 0, 16)


def check_scores(board: Scoreboard) -> None:
    """Scores whose powers of e are too small, or too large, for float32; and both in turn.

    One text's scores are all -2^20, below the finite numbers that have stood for -inf.
    """
    signs = torch.tensor([[-1, -1], [1, 1], [-1, 1], [1, -1]])
    texts = drawn(lengths(*[37] * (len(signs) + 1)), 1, 1, 16, seed=6)
    q, k, _ = texts[-1]
    q[:], k[:] = 4.0, 0.0
    k[0, 0, :, 0] = -(2.0**20)
    for (q, k, _), sign in zip(texts[:-1], signs, strict=True):
        q[:], k[:] = 4.0, 0.0  # a score is k[0], exactly
        k[0, 0, :, 0] = 150 * sign.repeat_interleave(19)[:37] + torch.arange(37) % 8 / 8
    row = Row(texts, 4)
    row.hold(board, "scores near -150 and 150, and -2^20", 1, 0, 16)
    row.hold(board, "scores near -150 and 150, and -2^20", 3, 0, 16)


def check_narrow() -> None:
    """In float16, or on a GPU in bf16, by the law: a mixed row, and decode in parts."""
    dtype = BF16 if DEVICE == "cuda" else F16
    for spans, cut in ((MIXED, (1,)), (lengths(200, 23), (3, 0, 16))):
        texts = [[x.to(dtype).float() for x in text] for text in drawn(spans, 1, 3, 20, seed=13)]
        row, exact = Row(texts, 3, dtype), exactly(texts)
        mine = row.mix(row.reading(), row.q, *cut)
        agree("dtype of the mix", mine.dtype, dtype)
        said = f"(parts, each, tile) {cut} in {KIND[dtype]}: the error from float64 must be no"
        holds(f"{said} larger than plain torch's", lawful(mine, row.pools, exact))


def check_company() -> None:
    """A text's bits are the same alone, among others, and in tiles of another order."""
    row = Row(drawn(lengths(5, 40, 23), 1, 2, 16, seed=7), 4)
    cut = (3, 16, 16)
    all_of_them = row.mix(row.reading(), row.q, *cut)
    for i, mine in enumerate(all_of_them):
        alone = row.mix(row.reading([i]), row.q[i : i + 1], *cut)
        must = f"text {i} of 3, cut {cut}, must have the bits that it has alone"
        holds(must, torch.equal(mine[None], alone))
    row = Row(drawn(((25, 2), (1, 7)), 1, 3, 20, seed=8), 3)
    told = row.reading()
    back = Reading(told.tables, told.spans, told.tiles.flip(0), told.queries)
    one, other = (row.mix(which, row.q) for which in (told, back))
    holds("tiles in another order must give the same bits", torch.equal(one, other))


def check_future() -> None:
    """Keys after a tile's last query are not read, or a NaN there would come through."""
    row = Row(drawn(((70, 0),), 1, 1, 16, seed=12), 16)
    told, table = row.reading(), row.tables[row.order[0]].tolist()
    first = told.queries  # 64; what a reader's own tiles may be instead is no matter
    before = row.mix(told, row.q)[:first]
    later = [table[place // 16] * 16 + place % 16 for place in range(first, 70)]
    for held in (row.keys, row.values):
        held[later] = torch.nan
    after = row.mix(told, row.q)[:first]
    holds("keys after a tile's last query must not be read", torch.equal(before, after))


def check_far() -> None:
    """A block past 2^31 numbers of a pool, on the CPU, where only what is written takes room.

    As much lies before the pool, where an address would come out that 32 bits turned negative.
    """
    if DEVICE == "cuda":
        return  # tests/test_kernels.py has a whole pool there
    D, size, far = 64, 16, 2**21
    try:
        pool = torch.empty(2**32 + 2 * size * D, dtype=F16)[2**31 :].view(-1, 1, D)
    except RuntimeError:
        return  # a system that keeps room for all that is asked for, and has less than 8 GiB
    pool[far * size :] = wanted = torch.arange(D, dtype=F16) / 8
    table = torch.tensor([[far]], dtype=torch.int32)
    told = attempt("reading of one text", reading, table, [(1, 2, 0)], 1)
    # Not by `attempt`, which would copy the pool.
    mine = paged_attention(torch.ones(1, 1, D, dtype=F16), pool, pool, told, size)
    there = "cast the block to tl.int64 before it is multiplied"
    agree(f"a block past 2^31 numbers ({there})", mine[0].tolist(), wanted.tolist())


def check_reading() -> None:
    """Every query of every text stands in one tile, and is told of its own text."""
    tables = torch.zeros(9, 4, dtype=torch.int32, device=DEVICE)
    for spans in ([(1, 4, 8), (1, 0, 2)], [(130, 0, 3), (1, 9, 0), (64, 2, 1), (65, 0, 7)]):
        for G in (1, 3, 8, 100):
            told = attempt(f"reading of {spans}, G {G}", reading, tables, spans, G)
            rows = [sum(new for new, _, _ in spans[:i]) for i in range(len(spans))]
            wanted = [[row, *span] for row, span in zip(rows, spans, strict=True)]
            agree(f"spans of {spans}", told.spans.T.tolist(), wanted)
            tiles = [tuple(tile) for tile in told.tiles.tolist()]
            step = range(told.queries)
            met = [(i, at + n) for i, at in tiles for n in step if at + n < spans[i][0]]
            every = [(i, n) for i, (new, _, _) in enumerate(spans) for n in range(new)]
            agree(f"queries in tiles of {spans}, G {G}", sorted(met), every)
            kinds = {x.dtype for x in (told.spans, told.tiles)}
            agree("dtype of spans and tiles", kinds, {torch.int32})


def check_refused() -> None:
    """Parts that leave out the end of a text, or of its last block; spans not row by row."""
    row = Row(drawn(lengths(24, 3), 1, 1, 16, seed=9), 4)
    held = 4 * row.tables.shape[1]
    what = f"parts of too few keys, where tables hold {held}"
    args = row.q, row.keys, row.values, row.reading(), 4
    for parts, each in ((3, 8), (held - 1, 1)):
        said = must_raise(ValueError, what, paged_attention, *args, parts, each)
        tells(what, said, [parts, each, held])
    told, what = row.reading(), "spans that lie text by text"
    turned = told.spans.T.contiguous().T
    said = must_raise(ValueError, what, Reading, told.tables, turned, told.tiles, 1)
    tells(what, said, ["spans", turned.stride()])


def check_attention(board: Scoreboard) -> None:
    """On made numbers, cheap ones first."""
    check_reading()
    check_refused()
    check_plain(board)
    check_company()
    check_future()
    check_far()
    check_scores(board)
    check_rows(board)
    check_lengths(board)
    check_narrow()


@torch.inference_mode()
def check_model(board: Scoreboard, folder: Path) -> None:
    """A checkpoint's queries, keys and values: a prompt in its first layer, decode in its third."""
    config, seen = ModelConfig.from_pretrained(folder), []
    model = load(folder, num_blocks=min(MOST, config.num_hidden_layers))

    def attend(q, k, v):
        seen.append((q, k, v))
        return causal_attention(q, k, v)

    last = len(model.blocks) - 1
    model(text(folder, config)[:, :FEW], attends=[attend] * (last + 1))
    q, k, v = seen[0]
    Row([(q, k, v)], 16).hold(board, "layer 0, a prompt", ref=folder)
    q, k, v = seen[last]
    Row([(q[:, :, -1:], k, v)], 5).hold(board, f"layer {last}, decode", 2, 0, 16, ref=folder)
