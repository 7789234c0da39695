"""The picture that a link to a page shows elsewhere: its title over the strip of its day."""

import sys
import textwrap
from functools import partial
from pathlib import Path

from days import DAY
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "figures"))

from draw import Drawing
from strip import EVERY_DAY, strip

PAPER, BOX, GROUP, LINE, INK, MUTED, ACCENT = (
    "#12181d",
    "#222c33",
    "#182026",
    "#4d5b66",
    "#dce2e7",
    "#9eaab4",
    "#58c9bf",
)
SIZE = (1200, 630)
FOLDER = "_images/social"


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
    strip(today, partial(Picture, axes))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=PAPER)


class Picture(Drawing):
    """The shapes of a strip, drawn on matplotlib's axes in the dark page's colours."""

    def __init__(self, axes, width: int, height: int, title: str):
        super().__init__(width, height, title)
        self.axes, self.left, self.top = axes, 70, 430
        self.scale = min(1060 / width, 185 / height)
        self.layer = 1  # what is drawn later lies above

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self.left + x * self.scale, self.top + y * self.scale

    def _paint(self, kind: str) -> dict:
        lit = "ns-lit" in kind.split()
        edge = LINE if kind in ("ns-box", "ns-group") else ACCENT
        face = ACCENT if lit else GROUP if "ns-group" in kind else BOX
        self.layer += 1
        return {"fc": face, "ec": edge, "lw": 2.4 if "ns-lit-line" in kind else 1.6,
                "zorder": self.layer}  # fmt: skip

    def box(self, x, y, w, h, kind="ns-box", r=7):
        style = f"round,pad=0,rounding_size={r * self.scale}"
        size = (w * self.scale, h * self.scale)
        self.axes.add_patch(
            FancyBboxPatch(self._at(x, y), *size, boxstyle=style, **self._paint(kind))
        )

    def text(self, x, y, words, kind="ns-text", size=14, anchor="middle"):
        colours = {"ns-muted": MUTED, "ns-on": PAPER}
        self.axes.text(
            *self._at(x, y),
            words,
            color=colours.get(kind.split()[0], INK),
            fontsize=size * self.scale * 72 / 110,
            ha={"middle": "center", "start": "left", "end": "right"}[anchor],
            va="center",
            zorder=self.layer + 1,
        )

    def wire(self, *points, tip=True, kind="ns-wire", dash=False):
        colour = ACCENT if kind == "ns-lit-line" else LINE
        self.layer += 1
        line = {"color": colour, "lw": 1.4, "zorder": self.layer}
        self.axes.plot(*zip(*(self._at(*p) for p in points), strict=True), **line)
        if tip:
            start, end = (self._at(*p) for p in points[-2:])
            arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.4, "shrinkA": 0, "shrinkB": 0}
            self.axes.annotate("", end, start, arrowprops=arrow, zorder=self.layer)

    def add(self, x, y, kind="ns-box", ink="ns-text"):
        self.axes.add_patch(Circle(self._at(x, y), 11 * self.scale, **self._paint(kind)))
        self.text(x, y, "+", ink, 16)


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
