"""The strip at the top of every day: the whole as far as it goes, with the day's piece lit.

Week 1 has the block (Days 2 to 7); from Day 8 on it is the engine around it, whose words are large
enough for a telephone. `python book/figures/strip.py` writes strip-day02.svg to strip-day26.svg
beside this file, from diagrams.py block.svg, engine.svg and harness.svg, from weeks.py week2.svg to
week4.svg and threads.svg, and from whole.py whole.svg; `--check` says which of them differ.
"""

import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from diagrams import block, engine, harness  # noqa: E402
from draw import Drawing  # noqa: E402
from weeks import threads, week2, week3, week4  # noqa: E402
from whole import whole  # noqa: E402

DAYS = range(2, 27)
MODEL_STANDS = 7  # the day that closes the block; from the next one on the strip is the engine's
EVERY_DAY = 99  # a page that is no day shows the finished block


@dataclass(frozen=True)
class Piece:
    """A box of a strip: where it stands and the days that build it."""

    words: str
    x: int
    y: int
    w: int
    h: int
    days: tuple[int, ...]


def state(days: tuple[int, ...], today: int) -> tuple[str, str]:
    """Classes of a box and its words: lit today, built on an earlier day, or still to come."""
    if today in days:
        return "ns-box ns-lit", "ns-on ns-strong"
    return ("ns-box ns-done", "ns-text") if min(days) < today else ("ns-box", "ns-muted")


def outline(days: tuple[int, ...], today: int) -> str:
    """Classes of the line around several boxes."""
    box = state(days, today)[0]
    return {"ns-box ns-lit": "ns-group ns-lit-line"}.get(box, box.replace("ns-box", "ns-group"))


# Week 1: the block.
ROW = 60  # top of the boxes that stand in one line
BLOCK = [
    Piece("config,\nweights", 14, ROW, 84, 56, (2,)),
    Piece("loader", 120, ROW, 72, 56, (3,)),
    Piece("embed", 214, ROW, 68, 56, (7,)),
    Piece("RMS\nNorm", 330, ROW, 62, 56, (4,)),
    Piece("attention\n(GQA)", 414, ROW, 94, 56, (6,)),
    Piece("RoPE", 432, 119, 58, 24, (4,)),
    Piece("RMS\nNorm", 574, ROW, 62, 56, (4,)),
    Piece("SwiGLU", 658, ROW, 84, 56, (5,)),
    Piece("next\nblocks", 846, ROW, 80, 56, (8,)),
]
ADDS = (541, 775)  # the two places where the residual comes back
MIDDLE = ROW + 28


def draw_block(d: Drawing, today: int) -> None:
    d.box(308, 14, 500, 138, "ns-group" + (" ns-lit-line" if today == MODEL_STANDS else ""), 10)
    for left, right in ((98, 120), (192, 214), (282, 330), (392, 414), (508, 530), (552, 574),
                        (636, 658), (742, 764), (786, 846)):
        d.wire((left, MIDDLE), (right, MIDDLE), tip=right - left > 12)
    for start, end in ((319, ADDS[0]), (563, ADDS[1])):
        d.wire((start, MIDDLE), (start, 36), (end, 36), (end, MIDDLE - 11))
    for piece in BLOCK:
        box, ink = state(piece.days, today)
        size = 14 if piece.words == "RoPE" else 16
        d.label(piece.x, piece.y, piece.w, piece.h, piece.words, box, ink, size)
    for x in ADDS:
        d.add(x, MIDDLE, *state((MODEL_STANDS,), today))


# From Week 2 on: the engine, a token's way round it. Text goes in at the top and out below it.
TODAY = {
    8: "one token at a time",
    9: "the choice of a token",
    10: "a cache that cannot be seen",
    11: "what a token costs",
    12: "text in and out",
    13: "several at once",
    14: "pages",
    15: "the book of blocks",
    16: "one rule for who runs",
    17: "when memory runs out",
    18: "work not done twice",
    19: "an engine that does not block",
    20: "the API and its stream",
    21: "under load",
    22: "a kernel, and bf16",
    23: "scores that are never written",
    24: "a step without the host",
    25: "one millisecond a token",
    26: "the whole race",
}
COLUMNS, UPPER, LOWER, W, H = (12, 152, 292, 432), 48, 142, 116, 46
LOOP, SERVER, GPU = (8, 24), (19, 20, 21, 26), (22, 23, 24, 25, 26)
PAGES_FROM, REQUESTS_FROM = 14, 13  # until then it is one cache, and one request


def engine_pieces(today: int) -> list[Piece]:
    a, b, c, d = COLUMNS
    pages = "pages" if today >= PAGES_FROM else "KV cache"
    request = "requests" if today >= REQUESTS_FROM else "request"
    return [
        Piece("text", a, UPPER, W, H, (12,)),
        Piece("tokenizer", b, UPPER, W, H, (12,)),
        Piece(request, c, UPPER, W, H, (13, 16)),
        Piece("scheduler", d, UPPER, W, H, (16, 17)),
        Piece(pages, d, LOWER, W, H, (10, 11, 14, 15, 17, 18, 23)),
        Piece("model", c, LOWER, W, H, (8, 11, 22, 23, 25)),
        Piece("sampler", b, LOWER, W, H, (9, 24)),
        Piece("text", a, LOWER, W, H, (12,)),
    ]


def draw_engine(d: Drawing, today: int) -> None:
    d.text(12, 20, f"Day {today}: {TODAY[today]}", "ns-text ns-strong", 20, "start")
    for name, days, x, y, w, h, at in (
        ("server", SERVER, 140, 38, 416, 166, (554, 20)),
        ("GPU", GPU, 146, 118, 404, 78, (546, 130)),
    ):
        d.box(x, y, w, h, outline(days, today), 10)
        ink = "ns-muted" if min(days) > today else "ns-text"
        d.text(*at, name, ink + (" ns-strong" if today in days else ""), 18, "end")
    upper, lower = UPPER + H / 2, LOWER + H / 2
    for left, right in pairwise(COLUMNS):
        d.wire((left + W, upper), (right, upper))
        d.wire((right, lower), (left + W, lower))
    down, up = COLUMNS[3] + 40, COLUMNS[1] + W / 2
    d.wire((down + 20, UPPER + H), (down + 20, LOWER))
    lit = "ns-lit-line" if today in LOOP else "ns-wire"
    d.wire((up, LOWER), (up, 106), (down, 106), (down, UPPER + H), kind=lit)
    for piece in engine_pieces(today):
        box, ink = state(piece.days, today)
        for behind in (6, 3) if piece.words == "requests" else ():
            d.box(piece.x + behind, piece.y - behind, piece.w, piece.h, box.replace("lit", "done"))
        d.label(piece.x, piece.y, piece.w, piece.h, piece.words, box, ink, 19)


def strip(today: int, drawing=Drawing) -> Drawing:
    """The strip of one day, drawn with what draws as a Drawing does (book/_ext/cards.py)."""
    if today <= MODEL_STANDS or today == EVERY_DAY:
        d = drawing(940, 160, f"The block, and the piece of day {today}")
        draw_block(d, today)
    else:
        d = drawing(560, 210, f"The engine, and the piece of day {today}")
        draw_engine(d, today)
    return d


def files() -> dict[str, str]:
    """File name -> content, of every drawing."""
    out = {f"strip-day{day:02d}.svg": strip(day).svg() for day in DAYS}
    return out | {"block.svg": block(), "engine.svg": engine(), "harness.svg": harness(),
                  "week2.svg": week2(), "week3.svg": week3(), "week4.svg": week4(),
                  "threads.svg": threads(),
                  "whole.svg": whole()}


def main(check: bool) -> int:
    different = []
    for name, content in files().items():
        path = HERE / name
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            different.append(name)
            if not check:
                path.write_text(content, encoding="utf-8")
    if different:
        print(("differs: " if check else "wrote ") + ", ".join(different))
    return int(check and bool(different))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
