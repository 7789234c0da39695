"""A browser and a server for the tests of the built site."""

import functools
import shutil
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pdf import BROWSERS

BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)


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
