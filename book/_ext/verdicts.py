"""The verdicts on the landing page, counted by the notebooks as they ran for this build.

In a page, `<td data-day="05"></td>` is filled with the number of tensors of Day 5 that matched
HuggingFace. A day whose comparison printed no verdict is a warning.
"""

import re

from days import DAY
from docutils import nodes
from sphinx.util import logging

LOG = logging.getLogger(__name__)
# As nanoserve.comparison.Scoreboard.verdict words it.
VERDICT = re.compile(r": ([\d,]+) tensors match HuggingFace")
PLACE = re.compile(r'(<td\b[^>]*\bdata-day="(\d\d)"[^>]*>)(?=</td>)')


def matched(doctree: nodes.document) -> int:
    """How many tensors the comparison cells of a day found to match."""
    tables = [
        raw.astext()
        for cell in doctree.findall(nodes.container)
        if "tag_comparison" in cell["classes"]
        for raw in cell.findall(nodes.raw)
    ]
    counts = [found[1].replace(",", "") for table in tables for found in VERDICT.finditer(table)]
    return sum(map(int, counts))


def fill(text: str, counts: dict[str, int], location: str) -> str:
    """The text with each day's number in its place."""

    def verdict(place: re.Match) -> str:
        count = counts.get(place[2], 0)
        if not count:
            LOG.warning("no comparison of Day %s printed a verdict", place[2], location=location)
        return f"{place[1]}{count:,}" if count else place[1]

    return PLACE.sub(verdict, text)


def known(env) -> dict[str, int]:
    """The number of each day, kept in Sphinx's environment from one build to the next."""
    if not hasattr(env, "nanoserve_matched"):
        env.nanoserve_matched = {}
    return env.nanoserve_matched


def on_read(app, doctree: nodes.document) -> None:
    if DAY.fullmatch(app.env.docname):
        known(app.env)[app.env.docname[-2:]] = matched(doctree)


def on_resolved(app, doctree: nodes.document, docname: str) -> None:
    for raw in doctree.findall(nodes.raw):
        if PLACE.search(raw.astext()):
            raw.children[:] = [nodes.Text(fill(raw.astext(), known(app.env), docname))]


def landing_page(app, env) -> list[str]:
    """It is written anew with whatever day is."""
    return [app.config.root_doc]


def forget(app, env, docname: str) -> None:
    known(env).pop(docname[-2:], None)


def setup(app) -> dict:
    app.connect("doctree-read", on_read)
    app.connect("doctree-resolved", on_resolved)
    app.connect("env-purge-doc", forget)
    app.connect("env-updated", landing_page)
    return {"version": "1", "env_version": 1, "parallel_read_safe": False}
