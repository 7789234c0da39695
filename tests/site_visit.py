"""A visit of each page of the built site in a real browser, paid for once and asked by many tests.

A page is opened over http, narrow and dark, then wide and
light, and once more from its file; what a test wants to know of it is written down in its Visit.
"""

import gzip
import json
import os
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from urllib.parse import unquote, urlsplit

import yaml
from axe_playwright_python.base import AXE_FILE_PATH
from pdf import BROWSERS, page_names
from site_browser import BROWSER, first_paint, listen, set_theme, start

ROOT = Path(__file__).resolve().parents[1]
SITE = Path(os.environ.get("NANOSERVE_SITE", ROOT / "_build/html"))
CHAPTERS = page_names(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
PAGES = [*CHAPTERS, "search", "genindex", "py-modindex"]
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PROBE = (ROOT / "tests/site_probe.js").read_text(encoding="utf-8")
FINDINGS = (ROOT / "tests/site_axe.js").read_text(encoding="utf-8")
SOURCES = ("_config.yml", "_toc.yml", "book/*", "book/_*/*", "book/figures/*", "nanoserve/**/*.py")


def missing() -> str | None:
    """Why the site cannot be tested here, or None."""
    if BROWSER is None:
        return f"no browser: none of {', '.join(BROWSERS)} is installed"
    built = SITE / "searchindex.js"  # the last file that Sphinx writes
    if not built.exists():
        return "no site: make book has not run"
    found = (path for pattern in SOURCES for path in ROOT.glob(pattern) if path.is_file())
    files = [path for path in found if path.suffix != ".pyc"]
    newest = max(files, key=lambda path: path.stat().st_mtime)
    if "NANOSERVE_SITE" not in os.environ and newest.stat().st_mtime > built.stat().st_mtime:
        return f"an old site: {newest.relative_to(ROOT)} is newer, so make book first"
    return None


@dataclass
class Visit:
    """What one page showed. `light` and `dark` are the probe's answers, see site_probe.js."""

    name: str
    light: dict
    dark: dict
    from_file: dict
    complaints: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


class Site:
    """The built site, its address, and what was seen on each page that a test has asked for.

    Two browsers visit, each in a thread of its own, what is wanted: a page at a time in each.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.queue: SimpleQueue[str | None] = SimpleQueue()
        self.seen: dict[str, Future[Visit]] = {}
        self.threads = [Thread(target=self.work, daemon=True) for _ in range(2)]
        for thread in self.threads:
            thread.start()

    def want(self, name: str) -> Future:
        """The visit of that page, at some time; one that failed is not made again."""
        if name not in self.seen:
            self.seen[name] = Future()
            self.queue.put(name)
        return self.seen[name]

    def visit(self, name: str) -> Visit:
        """The visit of that page, once it was made."""
        return self.want(name).result(timeout=600)

    def work(self) -> None:
        """In a thread: visits, until there are no more to come."""
        with start() as browser:
            visitor = Visitor(browser, self.address)
            for name in iter(self.queue.get, None):
                try:
                    self.seen[name].set_result(visitor.visit(name))
                except Exception as error:
                    self.seen[name].set_exception(error)

    def close(self) -> None:
        while not self.queue.empty():  # after a Ctrl-C
            self.queue.get()
        for _ in self.threads:
            self.queue.put(None)
        for thread in self.threads:
            thread.join()


class Visitor:
    """A tab of a browser that goes through pages of the site."""

    def __init__(self, browser, address: str) -> None:
        self.address, self.axe = address, AXE_FILE_PATH.read_text(encoding="utf-8")
        self.files = SITE.as_uri() + "/"
        self.context = browser.new_context(viewport=WIDE, reduced_motion="reduce")
        self.context.set_default_timeout(60_000)
        self.page = self.context.new_page()
        self.log: list[str] = []
        self.asked: list[str] = []
        listen(self.page, self.log, self.asked)

    def visit(self, name: str) -> Visit:
        self.log.clear()
        self.asked.clear()
        page = self.page
        page.set_viewport_size(NARROW)  # first, as the theme looks once for what scrolls
        page.goto(f"{self.address}{name}.html")
        set_theme(page, "dark")
        dark = page.evaluate(PROBE)
        dark["first_paint"] = first_paint(page)
        page.evaluate(self.axe)
        dark["axe"] = page.evaluate(FINDINGS, False)
        page.set_viewport_size(WIDE)
        set_theme(page, "light")
        light = page.evaluate(PROBE)
        light["axe"] = page.evaluate(FINDINGS, False) + page.evaluate(FINDINGS, True)
        set_theme(page, "dark")
        dark["axe"] += page.evaluate(FINDINGS, True)
        page.goto(f"{self.files}{name}.html")
        from_file = page.evaluate(PROBE)
        inside = (self.address, self.files, "data:", "blob:")
        outside = [url for url in self.asked if not url.startswith(inside)]
        return Visit(name, light, dark, from_file, list(self.log), outside)


def weights(site: Site, seen: dict) -> tuple[int, int]:
    """Bytes of a page with all that it loads: as the files are, and as a server sends them."""
    raw = sent = 0
    for url in seen["loaded"]:
        if not url.startswith(site.address):
            continue
        own, compressed = weight(SITE / unquote(urlsplit(url).path).lstrip("/"))
        raw += own
        sent += compressed
    return raw, sent


@cache  # most files are every page's
def weight(path: Path) -> tuple[int, int]:
    """Bytes of a file: as it is, and as a server sends it."""
    data = path.read_bytes()
    packed = path.suffix in (".png", ".woff", ".woff2")
    return len(data), len(data) if packed else len(gzip.compress(data, 6))


def listed(items: list) -> str:
    """A failed check's finds, one a line, ten at most."""
    return "\n" + "\n".join(json.dumps(item, ensure_ascii=False) for item in items[:10])


def said(figure) -> str:
    """What a figure says in words."""
    return figure.locator(".say").inner_text()
