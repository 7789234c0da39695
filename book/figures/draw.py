"""A few shapes of SVG for the book's drawings, all in one style.

The colours are CSS variables with a fallback. Inside a page they are the page's, light or dark;
in a file of its own (Jupyter, GitHub) the fallbacks draw the same picture on a light card.
No ids, so that several drawings fit in one page.
"""

from html import escape

STYLE = """
.ns-card{fill:var(--ns-card,#fcfbf8)}
.ns-box{fill:var(--ns-box,#ffffff);stroke:var(--ns-line,#a3adb5);stroke-width:1.25}
.ns-group{fill:var(--ns-group,#f1efe9);stroke:var(--ns-line,#a3adb5);stroke-width:1.25}
.ns-dash{stroke-dasharray:4 4}
.ns-done{stroke:var(--ns-accent,#0b6b67);stroke-width:1.75}
.ns-lit{fill:var(--ns-accent,#0b6b67);stroke:var(--ns-accent,#0b6b67)}
.ns-lit-line{fill:none;stroke:var(--ns-accent,#0b6b67);stroke-width:2.5}
.ns-wire{fill:none;stroke:var(--ns-wire,#74808a);stroke-width:1.5}
.ns-tip{fill:var(--ns-wire,#74808a)}
.ns-text{fill:var(--ns-ink,#1f2a33)}
.ns-muted{fill:var(--ns-muted,#55616b)}
.ns-on{fill:var(--ns-on-accent,#ffffff)}
.ns-strong{font-weight:600}
svg a:hover .ns-box,svg a:focus .ns-box{stroke:var(--ns-accent,#0b6b67);stroke-width:2.5}
""".strip()
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue','DejaVu Sans',sans-serif"


class Drawing:
    """Shapes in the order they are drawn; `svg()` is the file."""

    def __init__(self, width: int, height: int, title: str):
        self.width, self.height, self.title = width, height, title
        self.parts: list[str] = []

    def box(self, x, y, w, h, kind="ns-box", r=7):
        self.parts.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{w}" height="{h}" rx="{r}"/>'
        )

    def text(self, x, y, words, kind="ns-text", size=14, anchor="middle"):
        """`words` may have lines; y is the baseline of the middle of them."""
        lines = words.split("\n")
        for i, line in enumerate(lines):
            at = round(y + (i - (len(lines) - 1) / 2) * size * 1.25 + size * 0.35, 1)
            self.parts.append(
                f'<text class="{kind}" x="{x}" y="{at}" font-size="{size}" '
                f'text-anchor="{anchor}">{escape(line)}</text>'
            )

    def label(self, x, y, w, h, words, kind="ns-box", ink="ns-text", size=14):
        """A box with words in its middle."""
        self.box(x, y, w, h, kind)
        self.text(x + w / 2, y + h / 2, words, ink, size)

    def wire(self, *points, tip=True, kind="ns-wire", dash=False):
        """A line through the points, with an arrow head on the last one."""
        path = "M" + " L".join(f"{x} {y}" for x, y in points)
        (x0, y0), (x1, y1) = points[-2:]
        extra = ' stroke-dasharray="4 4"' if dash else ""
        self.parts.append(f'<path class="{kind}" d="{path}"{extra}/>')
        if tip:
            dx, dy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
            back, side = (x1 - 7 * dx, y1 - 7 * dy), (4 * dy, 4 * dx)
            head = f"M{x1} {y1} L{back[0] + side[0]} {back[1] + side[1]} "
            head += f"L{back[0] - side[0]} {back[1] - side[1]} Z"
            self.parts.append(f'<path class="ns-tip" d="{head}"/>')

    def add(self, x, y, kind="ns-box", ink="ns-text"):
        """The plus where a residual comes back."""
        self.parts.append(f'<circle class="{kind}" cx="{x}" cy="{y}" r="11"/>')
        self.text(x, y, "+", ink, 16)

    def link(self, page: str):
        self.parts.append(f'<a href="{page}.html">')

    def end_link(self):
        self.parts.append("</a>")

    def svg(self) -> str:
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" font-family="{FONT}">\n'
            f"<title>{escape(self.title)}</title>\n<style>\n{STYLE}\n</style>\n"
            f'<rect class="ns-card" width="{self.width}" height="{self.height}" rx="10"/>\n'
            f"{body}\n</svg>\n"
        )
