"""What every test shares."""

import os
import signal
import sys

import pytest
from environment import settle
from hypothesis import HealthCheck, settings

settle()  # inherited by the kernels that nbval starts
# A shell's job in the background ignores Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    # Each gets its share of the cores: threads of several processes get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // workers)))
for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]  # what is asked for here answers on 127.0.0.1
# What hypothesis tries is the same in each run, and a busy machine is no fault.
SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("the same", derandomize=True, **SLOW)
settings.load_profile("the same")


@pytest.fixture(scope="module")
def browser():
    """A Chromium without a window, for the tests of a file."""
    from site_browser import start

    with start() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def address():
    """Where the built site is served, for the tests of a file."""
    from site_browser import served
    from site_visit import SITE

    with served(SITE) as url:
        yield url


@pytest.fixture
def opened(browser):
    """A function that opens a page from its file and gives a figure of it; nothing may complain."""
    from site_browser import listen
    from site_visit import SITE, WIDE, listed

    contexts, log = [], []

    def open_figure(name: str, selector: str, **settings):
        context = browser.new_context(**{"viewport": WIDE, "reduced_motion": "reduce"} | settings)
        contexts.append(context)
        page = context.new_page()
        listen(page, log, [])
        page.goto(f"{SITE.as_uri()}/{name}.html")
        return page, page.locator(selector).first

    yield open_figure
    for context in contexts:
        context.close()
    assert not log, listed(log)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An empty folder that stands for nanoserve; what was imported from the real one is hidden."""
    for name in [name for name in sys.modules if name.split(".")[0] == "nanoserve"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", sys.path[:])
    folder = tmp_path / "nanoserve"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.setenv("NANOSERVE_PACKAGE", str(folder))
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "nanoserve"]:
        del sys.modules[name]
