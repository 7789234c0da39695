"""The line under a day's title: date, times, what is built, what it is checked against.

    # Day 4: ...

    *2026-06-19 · 20 minutes to read, 50 to work through · builds `layers.py` · checked against ...*

In Jupyter that is a line in italics. Here its date goes to the feed and the paragraph after it
becomes the page's description, for search engines and previews. A day without it is a warning.
"""

import html
import re
from dataclasses import dataclass
from datetime import date

from docutils import nodes
from sphinx import addnodes
from sphinx.util import logging

LOG = logging.getLogger(__name__)
DAY = re.compile(r"(?:.*/)?day\d\d")
BYLINE = re.compile(r"(\d{4}-\d\d-\d\d) · \d+ minutes(?: to read, \d+ to work through)? · ")


@dataclass(frozen=True)
class Day:
    docname: str
    title: str
    date: date
    summary: str


def read_day(docname: str, doctree: nodes.document) -> Day | None:
    """The day that a page is, with its byline marked for the style sheet; None without one."""
    title = next(doctree.findall(nodes.title), None)
    paragraphs = [p for p in doctree.findall(nodes.paragraph) if p.astext().strip()]
    if title is None or not paragraphs:
        return None
    byline = paragraphs[0]
    found = BYLINE.match(byline.astext())
    if not found or not isinstance(byline[0], nodes.emphasis):
        return None
    byline["classes"].append("ns-byline")
    prose = [p for p in paragraphs[1:] if not any(p.findall(nodes.image))]
    summary = _plain(prose[0]) if prose else ""
    return Day(docname, title.astext(), date.fromisoformat(found[1]), summary)


def _plain(paragraph: nodes.paragraph) -> str:
    """The paragraph's words, without citations, whose text is still a key at this point."""
    copy = paragraph.deepcopy()
    for reference in list(copy.findall(addnodes.pending_xref)):
        if reference.get("refdomain") == "cite":
            reference.parent.remove(reference)
    return " ".join(copy.astext().split())


def on_read(app, doctree: nodes.document) -> None:
    docname = app.env.docname
    if not DAY.fullmatch(docname):
        return
    day = read_day(docname, doctree)
    if day is None:
        LOG.warning("no byline under the title (see book/_ext/days.py)", location=docname)
        return
    known_days(app.env)[docname] = day
    app.env.metadata[docname]["og:description"] = day.summary


def describe(app, pagename, templatename, context, doctree) -> None:
    """The description that search engines show, before opengraph takes the first 200 signs."""
    day = known_days(app.env).get(pagename)
    if day:
        tag = f'<meta name="description" content="{html.escape(day.summary)}" />\n'
        context["metatags"] = context.get("metatags", "") + tag


def known_days(env) -> dict[str, Day]:
    """docname -> Day, kept in Sphinx's environment from one build to the next."""
    if not hasattr(env, "nanoserve_days"):
        env.nanoserve_days = {}
    return env.nanoserve_days


def forget(app, env, docname: str) -> None:
    known_days(env).pop(docname, None)


def setup(app) -> dict:
    app.connect("doctree-read", on_read)
    app.connect("env-purge-doc", forget)
    app.connect("html-page-context", describe, priority=400)
    return {"version": "1", "env_version": 1, "parallel_read_safe": False}
