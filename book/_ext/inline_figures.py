"""Figures of the book: SVG put into the page, captions that also read well in Jupyter.

Three conventions, all of them plain Markdown that Jupyter shows as it is:

- `![what it shows](figures/name.svg)`: the file becomes part of the page, so that it takes the
  page's colours, light or dark. An `<img>` would only see the system's colour scheme.
- an image and, on the next line, `*Caption.*`: a figure with a caption.
- a Markdown cell of nothing but `*Caption.*` right after a code cell with an output.

A picture of a cell is a link to its file. A picture without alt text is a warning, and the book is
built with warnings as errors.
"""

import html
import re
from pathlib import Path

from docutils import nodes
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

LOG = logging.getLogger(__name__)
LIT = re.compile(r'class="ns-box ns-lit" x="(\d+)"')
SMALL = 600  # units of a drawing whose words a telephone shows large enough
DAY_LINK = re.compile(r'href="([\w-]+)\.html"')


class Figure(nodes.figure):
    """A figure that Sphinx does not number: in Jupyter it has no number either."""


class CaptionedImage(SphinxTransform):
    """A paragraph of an image and an emphasised line becomes a figure with its caption."""

    default_priority = 400

    def apply(self) -> None:
        for paragraph in list(self.document.findall(nodes.paragraph)):
            parts = [n for n in paragraph.children if n.astext().strip() or _is_image(n)]
            if len(parts) != 2 or not _is_image(parts[0]):
                continue
            if isinstance(parts[1], nodes.emphasis):
                caption = nodes.caption("", "", *parts[1].children)
                paragraph.replace_self(Figure("", parts[0], caption))


def _is_image(node: nodes.Node) -> bool:
    return isinstance(node, nodes.image)


def svg_markup(path: Path, alt: str, link) -> str:
    """The file's <svg> element with `alt` as its label; `link(name)` gives a page's address.

    A drawing with links in it is a group, not an image: an image's children are not read out.
    """
    text = path.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<title>.*?</title>|<!--.*?-->", "", text, flags=re.S)
    text = DAY_LINK.sub(lambda m: f'href="{link(m[1])}"', text)
    role = "group" if "<a " in text else "img"
    text = text.replace("<svg", f'<svg role="{role}" aria-label="{html.escape(alt)}"', 1)
    kind = path.stem
    if kind.startswith("strip-"):
        kind = _strip_kind(text)
    return f'<span class="ns-diagram ns-{kind}" tabindex="0">{text}</span>'


def _strip_kind(svg: str) -> str:
    """Small: a telephone shows all of it. Late: it scrolls there, and opens at its right end."""
    width = int(re.search(r'\bwidth="(\d+)"', svg)[1])
    lit = [int(x) for x in LIT.findall(svg)]
    if width <= SMALL:
        return "strip ns-small"
    return "strip ns-late" if lit and min(lit) > width / 2 else "strip"


def finish_figures(app, doctree: nodes.document, docname: str) -> None:
    """Inline the SVG files, mark captions of cells, and see that every picture has alt text."""
    if app.builder.format != "html":
        return
    for image in list(doctree.findall(nodes.image)):
        if not image.get("alt", "").strip():
            LOG.warning("picture %s has no alt text", image["uri"], location=(docname, image.line))
        path = Path(app.srcdir, image["uri"])
        if path.suffix == ".svg" and path.parent.name == "figures" and path.exists():
            markup = svg_markup(path, image.get("alt", ""), _linker(app, docname))
            image.replace_self(nodes.raw("", markup, format="html"))
        else:  # Sphinx links a picture with a size to its file: a narrow screen shows it small
            image["height"] = "auto"
    for cell in doctree.findall(lambda n: "cell" in _classes(n)):
        caption = cell.next_node(nodes.paragraph, descend=False, siblings=True)
        after = cell.parent.index(cell) + 1
        if caption is None or cell.parent.index(caption) != after:
            continue
        if len(caption) == 1 and isinstance(caption[0], nodes.emphasis) and _shows(cell):
            caption["classes"].append("ns-caption")


def _classes(node: nodes.Node) -> list[str]:
    return node["classes"] if isinstance(node, nodes.Element) else []


def _shows(cell: nodes.Element) -> bool:
    """Whether a cell put out anything: a picture, a table, a figure of its own."""
    return any("cell_output" in _classes(node) for node in cell.findall())


def _linker(app, docname: str):
    def link(name: str) -> str:
        target = str(Path(docname).parent / name)
        if target not in app.env.found_docs:
            LOG.warning("a drawing links to %s, which is not in the book", target, location=docname)
            return "#"
        return app.builder.get_relative_uri(docname, target)

    return link


def setup(app) -> dict:
    app.add_transform(CaptionedImage)
    app.connect("doctree-resolved", finish_figures)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
