"""The picture that a link to a page shows elsewhere: its title over the strip of its day."""

import sys
import textwrap
from pathlib import Path

from days import DAY
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "figures"))

from strip import ADDS, BLOCK, MIDDLE, PIECES, WIDTH

PAPER, BOX, LINE, INK, MUTED, ACCENT = (
    "#12181d",
    "#222c33",
    "#4d5b66",
    "#dce2e7",
    "#9eaab4",
    "#58c9bf",
)
SIZE = (1200, 630)
FOLDER = "_images/social"
EVERY_DAY = 99  # a page that is no day shows the finished block


def card(path: Path, title: str, subtitle: str, today: int) -> None:
    """Write a PNG of 1200 x 630 pixels."""
    figure = Figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100, facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, SIZE[0]), ylim=(SIZE[1], 0))
    axes.axis("off")
    axes.text(70, 84, "nanoserve", color=ACCENT, fontsize=24, weight="bold", va="center")
    lines = textwrap.wrap(title, 38, max_lines=3, placeholder="...")
    axes.text(
        70, 150, "\n".join(lines), color=INK, fontsize=34, weight="bold", va="top", linespacing=1.25
    )
    axes.text(70, 398, subtitle, color=MUTED, fontsize=18, va="center")
    _strip(axes, today)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=PAPER)


def _strip(axes, today: int) -> None:
    scale, left, top = 1060 / WIDTH, 70, 430

    def box(x, y, w, h, face, edge, zorder=2):
        axes.add_patch(
            FancyBboxPatch(
                (left + x * scale, top + y * scale),
                w * scale,
                h * scale,
                lw=1.6,
                fc=face,
                ec=edge,
                boxstyle="round,pad=0,rounding_size=8",
                zorder=zorder,
            )
        )

    def colours(day):
        if day == today:
            return ACCENT, ACCENT, PAPER
        return BOX, (ACCENT if day < today < EVERY_DAY else LINE), (MUTED if day > today else INK)

    box(*BLOCK, "#182026", ACCENT if today == 7 else LINE, zorder=0)
    axes.plot(
        [left, left + (WIDTH - 14) * scale],
        [top + MIDDLE * scale] * 2,
        color=LINE,
        lw=1.4,
        zorder=1,
    )
    for piece in PIECES:
        face, edge, ink = colours(piece.day)
        box(piece.x, piece.y, piece.w, piece.h, face, edge)
        axes.text(
            left + (piece.x + piece.w / 2) * scale,
            top + (piece.y + piece.h / 2) * scale,
            piece.words,
            color=ink,
            fontsize=12 if piece.words != "RoPE" else 10.5,
            ha="center",
            va="center",
        )
    for x in ADDS:
        face, edge, ink = colours(7)
        at = (left + x * scale, top + MIDDLE * scale)
        axes.add_patch(Circle(at, 12, fc=face, ec=edge, lw=1.6, zorder=3))
        axes.text(*at, "+", color=ink, fontsize=13, ha="center", va="center", zorder=4)


def add_card(app, pagename, templatename, context, doctree) -> None:
    """Draw the page's card and name it in the page's head, before opengraph writes the tags."""
    if doctree is None or app.builder.name != "html":
        return
    today = int(pagename[-2:]) if DAY.fullmatch(pagename) else EVERY_DAY
    name = f"{FOLDER}/{pagename.replace('/', '-')}.png"
    title = app.env.titles[pagename].astext()
    card(
        Path(app.outdir, name),
        title,
        "Llama-3.2-1B from its weight file up, checked at 1e-5",
        today,
    )
    context["meta"] = dict(context["meta"] or {}) | {
        "og:image": name,
        "og:image:alt": f"{title}, over a drawing of the transformer block",
        "og:image:width": str(SIZE[0]),
        "og:image:height": str(SIZE[1]),
    }


def setup(app) -> dict:
    app.connect("html-page-context", add_card, priority=400)  # opengraph has 500
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
