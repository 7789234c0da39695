"""The strip at the top of every day: the whole block, with the day's piece lit.

`python book/figures/strip.py` writes strip-day02.svg to strip-day07.svg beside this file, and
block.svg, engine.svg and harness.svg from diagrams.py; `--check` says which of them differ.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from diagrams import block, engine, harness  # noqa: E402
from draw import Drawing  # noqa: E402

WIDTH, HEIGHT = 940, 160
DAYS = range(2, 8)


@dataclass(frozen=True)
class Piece:
    """A box of the strip: where it stands and the days that build it."""

    words: str
    x: int
    y: int
    w: int
    h: int
    day: int


ROW = 60  # top of the boxes that stand in one line
PIECES = [
    Piece("config,\nweights", 14, ROW, 84, 56, 2),
    Piece("loader", 120, ROW, 72, 56, 3),
    Piece("embed", 214, ROW, 68, 56, 7),
    Piece("RMS\nNorm", 330, ROW, 62, 56, 4),
    Piece("attention\n(GQA)", 414, ROW, 94, 56, 6),
    Piece("RoPE", 432, 119, 58, 24, 4),
    Piece("RMS\nNorm", 574, ROW, 62, 56, 4),
    Piece("SwiGLU", 658, ROW, 84, 56, 5),
    Piece("next\nblocks", 846, ROW, 80, 56, 8),
]
BLOCK = (308, 14, 500, 138)  # x, y, width, height
ADDS = (541, 775)  # the two places where the residual comes back
MIDDLE = ROW + 28


def state(day: int, today: int) -> tuple[str, str]:
    """Classes of a box and its words: lit today, built on an earlier day, or still to come."""
    if day == today:
        return "ns-box ns-lit", "ns-on ns-strong"
    return ("ns-box ns-done", "ns-text") if day < today else ("ns-box", "ns-muted")


def strip(today: int) -> str:
    """The strip of one day as an SVG file."""
    drawing = Drawing(WIDTH, HEIGHT, f"The block, and the piece of day {today}")
    drawing.box(*BLOCK, "ns-group" + (" ns-lit-line" if today == 7 else ""), 10)
    for left, right in ((98, 120), (192, 214), (282, 330), (392, 414), (508, 530), (552, 574),
                        (636, 658), (742, 764), (786, 846)):
        drawing.wire((left, MIDDLE), (right, MIDDLE), tip=right - left > 12)
    for start, end in ((319, ADDS[0]), (563, ADDS[1])):
        drawing.wire((start, MIDDLE), (start, 36), (end, 36), (end, MIDDLE - 11))
    for piece in PIECES:
        box, ink = state(piece.day, today)
        size = 14 if piece.words == "RoPE" else 16
        drawing.label(piece.x, piece.y, piece.w, piece.h, piece.words, box, ink, size)
    for x in ADDS:
        drawing.add(x, MIDDLE, *state(7, today))
    return drawing.svg()


def files() -> dict[str, str]:
    """File name -> content, of every drawing."""
    out = {f"strip-day{day:02d}.svg": strip(day) for day in DAYS}
    return out | {"block.svg": block(), "engine.svg": engine(), "harness.svg": harness()}


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
