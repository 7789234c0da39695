"""feed.xml: an Atom feed (RFC 4287) of the days, newest first, with a link in every page."""

from pathlib import Path
from urllib.parse import urljoin
from xml.etree import ElementTree as ET

from days import Day, known_days

ATOM = "http://www.w3.org/2005/Atom"
NAME = "feed.xml"


def atom(days: list[Day], title: str, author: str, site: str) -> bytes:
    """The feed as UTF-8 XML. `site` is the book's address and ends with a slash.

    Dates are those of the bylines at midnight UTC, so that two builds give the same bytes.
    """
    ET.register_namespace("", ATOM)
    feed = ET.Element(f"{{{ATOM}}}feed")
    days = sorted(days, key=lambda day: day.date, reverse=True)
    _text(feed, "id", site)
    _text(feed, "title", title)
    _text(feed, "updated", _midnight(days[0]))
    _link(feed, urljoin(site, NAME), "self")
    _link(feed, site, "alternate")
    _text(ET.SubElement(feed, f"{{{ATOM}}}author"), "name", author)
    for day in days:
        entry = ET.SubElement(feed, f"{{{ATOM}}}entry")
        address = urljoin(site, f"{day.docname}.html")
        _text(entry, "id", address)
        _text(entry, "title", day.title)
        _text(entry, "published", _midnight(day))
        _text(entry, "updated", _midnight(day))
        _link(entry, address, "alternate")
        _text(entry, "summary", day.summary)
    ET.indent(feed)
    return ET.tostring(feed, encoding="utf-8", xml_declaration=True)


def _text(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, f"{{{ATOM}}}{name}").text = text


def _link(parent: ET.Element, href: str, rel: str) -> None:
    ET.SubElement(parent, f"{{{ATOM}}}link", href=href, rel=rel)


def _midnight(day: Day) -> str:
    return f"{day.date.isoformat()}T00:00:00Z"


def write(app, error) -> None:
    days = list(known_days(app.env).values()) if error is None else []
    if app.builder.name == "html" and days:
        config = app.config
        data = atom(days, config.html_title, config.author, config.html_baseurl)
        Path(app.outdir, NAME).write_bytes(data)


def announce(app, pagename, templatename, context, doctree) -> None:
    """A reader's program finds the feed from any page."""
    href = context["pathto"](NAME, 1)
    context["metatags"] = context.get("metatags", "") + (
        f'<link rel="alternate" type="application/atom+xml" title="nanoserve" href="{href}" />\n'
    )


def setup(app) -> dict:
    app.setup_extension("days")
    app.connect("html-page-context", announce)
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True}
