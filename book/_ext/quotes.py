"""A quoted message stays as the program says it: no curly quotes, and three dots are three dots.

Who copies a message into the page's search is to find it.
"""

from docutils import nodes
from sphinx.transforms import SphinxTransform


class LeaveQuotesAlone(SphinxTransform):
    """Marks block quotes, before Sphinx makes text typographical (at 750)."""

    default_priority = 700

    def apply(self) -> None:
        for quote in self.document.findall(nodes.block_quote):
            quote["support_smartquotes"] = False


def setup(app) -> dict:
    app.add_transform(LeaveQuotesAlone)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
