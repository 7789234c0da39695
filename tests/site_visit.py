"""A visit of each page of the built site in a real browser, paid for once and asked by many tests.

One Chromium, one server on 127.0.0.1. A page is opened over http, narrow and dark, then wide and
light, and once more from its file; what a test wants to know of it is written down in its Visit.
"""

import functools
import gzip
import json
import os
import shutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from axe_playwright_python.base import AXE_FILE_PATH
from pdf import BROWSERS, page_names

ROOT = Path(__file__).resolve().parents[1]
SITE = Path(os.environ.get("NANOSERVE_SITE", ROOT / "_build/html"))
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
CHAPTERS = page_names(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
PAGES = [*CHAPTERS, "search", "genindex", "py-modindex"]
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PROBE = (Path(__file__).parent / "site_probe.js").read_text(encoding="utf-8")
SOURCES = ("_config.yml", "_toc.yml", "book/*", "book/_*/*", "book/figures/*", "nanoserve/*.py")


def missing() -> str | None:
    """Why the site cannot be tested here, or None."""
    if BROWSER is None:
        return f"no browser: none of {', '.join(BROWSERS)} is installed"
    built = SITE / "searchindex.js"  # the last file that Sphinx writes
    if not built.exists():
        return "no site: make book has not run"
    files = [path for pattern in SOURCES for path in ROOT.glob(pattern) if path.is_file()]
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


class Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass


@contextmanager
def served(folder: Path):
    """The address of a server of `folder` on this machine, with a slash at its end."""
    handler = functools.partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def start():
    """A Chromium without a window, driven by Playwright; the installed one, none is fetched."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=BROWSER, args=flags)
        yield browser
        browser.close()


class Site:
    """The built site, its address, and what was seen on each page that a test has asked for."""

    def __init__(self, browser, address: str) -> None:
        self.address, self.axe = address, AXE_FILE_PATH.read_text(encoding="utf-8")
        self.files = SITE.as_uri() + "/"
        self.context = browser.new_context(viewport=WIDE, reduced_motion="reduce")
        self.page = self.context.new_page()
        self.log: list[str] = []
        self.asked: list[str] = []
        listen(self.page, self.log, self.asked)
        self.visit = functools.cache(self._visit)

    def _visit(self, name: str) -> Visit:
        self.log.clear()
        self.asked.clear()
        page = self.page
        page.set_viewport_size(NARROW)  # first, as the theme looks once for what scrolls
        page.goto(f"{self.address}{name}.html")
        set_theme(page, "dark")
        dark = self._probe()
        dark["first_paint"] = first_paint(page)
        page.set_viewport_size(WIDE)
        set_theme(page, "light")
        light = self._probe()
        page.goto(f"{self.files}{name}.html")
        from_file = self._probe(judge=False)
        inside = (self.address, self.files, "data:", "blob:")
        outside = [url for url in self.asked if not url.startswith(inside)]
        return Visit(name, light, dark, from_file, list(self.log), outside)

    def _probe(self, judge: bool = True) -> dict:
        """The probe's answers; with `judge`, axe-core's serious and critical findings too."""
        self.page.wait_for_load_state()
        seen = self.page.evaluate(PROBE)
        if judge:
            self.page.evaluate(self.axe)
            seen["axe"] = self.page.evaluate(
                "axe.run(document, {preload: false}).then((all) => all.violations"
                ".filter((v) => ['serious', 'critical'].includes(v.impact)).flatMap((v) =>"
                "v.nodes.map((n) => v.id + ': ' + n.target + ' ' + n.failureSummary)))"
            )
        return seen


def listen(page, log: list[str], asked: list[str]) -> None:
    """Write down what the page's console says, what fails, and every address it asks for."""

    def on_console(message) -> None:
        if message.type in ("error", "warning"):
            log.append(f"console: {message.text}")

    def on_failure(request) -> None:
        if request.failure != "net::ERR_ABORTED":  # a font still under way as the reader goes on
            log.append(f"failed: {request.url} {request.failure}")

    def on_response(response) -> None:
        if response.status >= 400:
            log.append(f"{response.status}: {response.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: log.append(f"exception: {error}"))
    page.on("requestfailed", on_failure)
    page.on("response", on_response)
    page.on("request", lambda request: asked.append(request.url))


def set_theme(page, theme: str) -> None:
    """Press the page's own button until it shows `theme`; it goes round light, dark and auto."""
    for _ in range(3):
        if page.locator("html").get_attribute("data-theme") == theme:
            page.mouse.move(1, 300)  # or the button's tooltip stays open
            return
        page.locator(".theme-switch-button:visible").click()
    raise AssertionError(f"{page.url}: three presses and no {theme} theme")


def first_paint(page) -> float:
    """Milliseconds from the page's start to its first text or picture."""
    return page.evaluate(
        "new Promise((done) => new PerformanceObserver((list) => done("
        "list.getEntriesByName('first-contentful-paint')[0].startTime))"
        ".observe({type: 'paint', buffered: true}))"
    )


def weights(site: Site, seen: dict) -> tuple[int, int]:
    """Bytes of a page with all that it loads: as the files are, and as a server sends them."""
    raw = sent = 0
    for url in seen["loaded"]:
        if not url.startswith(site.address):
            continue
        data = (SITE / unquote(urlsplit(url).path).lstrip("/")).read_bytes()
        packed = url.split("?")[0].endswith((".png", ".woff", ".woff2"))
        raw += len(data)
        sent += len(data) if packed else len(gzip.compress(data, 6))
    return raw, sent


def listed(items: list) -> str:
    """A failed check's finds, one a line, ten at most."""
    return "\n" + "\n".join(json.dumps(item, ensure_ascii=False) for item in items[:10])
