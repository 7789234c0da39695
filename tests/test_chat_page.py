"""The chat page in a real browser: asked, streamed, stopped; small and large, light and dark."""

import re
from dataclasses import replace

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from site_browser import BROWSER, listen

from nanoserve.checks.engine_texts import checkpoint
from nanoserve.checks.server_local import MODEL, Stepped, served
from nanoserve.engine.engine import Engine
from nanoserve.server.addresses import POLICY

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
ANSWER = ".assistant:not([aria-busy])"


@pytest.fixture(scope="module")
def engine():
    with checkpoint() as path:
        made = Engine(path, num_blocks=64)
        settled = made.settled  # its context is short, and a page asks for all of it
        six = {"max_tokens": 6, "ignore_eos": True, "stop_token_ids": ()}
        made.settled = lambda ids, params: settled(ids, replace(params, **six))
        yield made


@pytest.fixture
def local(engine):
    with served(engine, max_waiting=0) as server:
        yield server
    assert engine.num_free_blocks == 64


@pytest.fixture
def page(browser):
    """A page whose console and requests are written down."""
    context = browser.new_context(viewport=WIDE)
    found = context.new_page()
    found.set_default_timeout(20_000)
    found.log, found.asked = [], []
    listen(found, found.log, found.asked)
    yield found
    context.close()


def opened(page, local):
    page.goto(local.url)
    page.locator("#model", has_text=MODEL).wait_for()
    return page


def say(page, text: str) -> None:
    page.locator("#text").press_sequentially(text)
    page.keyboard.press("Enter")


def test_a_conversation_by_keyboard_asks_nobody_else(page, local):
    opened(page, local)
    say(page, "Hi")
    page.locator(ANSWER).wait_for()
    first = page.locator(".assistant").inner_text()
    say(page, "More")
    page.locator(ANSWER).nth(1).wait_for()
    assert page.locator(".user").all_inner_texts() == ["Hi", "More"]
    talk = [{"role": "user", "content": "Hi"}]
    body = {"messages": talk, "temperature": 0.7}
    assert local.http.post("/v1/chat/completions", json=body).status_code == 200
    assert first and page.log == []
    assert all(url.startswith((local.url, "data:")) for url in page.asked)
    assert page.evaluate("document.activeElement.id") == "text"
    page.get_by_role("button", name="New").click()
    assert page.locator(".user, .assistant, .note:not(#hint)").count() == 0


@pytest.mark.parametrize("how", ["Escape", "Stop", "New", "close"])
def test_an_answer_is_stopped_and_its_blocks_are_free(page, local, engine, how):
    opened(page, local)
    steps = Stepped(engine)
    try:
        say(page, "Hi")
        page.locator("#send", has_text="Stop").wait_for()
        while not engine.requests:
            local.turns(1)
        steps.go(3)
        if how == "Escape":
            page.keyboard.press("Escape")
        elif how == "close":
            page.close()
        else:
            page.get_by_role("button", name=how).click()
        for _ in range(20_000):
            if not local.worker.thread.commands.empty():
                break
            local.turns(1)
        steps.go(2)
        assert not engine.has_unfinished() and engine.num_free_blocks == 64
        if how in ("Escape", "Stop"):
            page.locator(".note", has_text="Stopped.").wait_for()
            page.locator("#send", has_text="Send").wait_for()
    finally:
        steps.free()


def test_a_full_server_says_so_and_the_question_stays(page, local, engine):
    opened(page, local)
    local.worker.places = 0
    say(page, "Hi")
    page.locator(".wrong", has_text=re.compile("try again in [0-9]+ s")).wait_for()
    assert page.locator("#text").input_value() == "Hi"
    local.worker.places = 16
    page.keyboard.press("Enter")
    page.locator(ANSWER).wait_for()


def test_a_key_is_asked_for(page, engine):
    with served(engine, api_key="a key") as local:
        page.goto(local.url)
        page.locator("#key").fill("a kex")
        page.keyboard.press("Enter")
        page.locator(".wrong").nth(1).wait_for()
        page.locator("#key").fill("a key")
        page.get_by_role("button", name="Use").click()
        page.locator("#model", has_text=MODEL).wait_for()
        assert not page.locator("#key").is_visible()
        say(page, "Hi")
        page.locator(ANSWER).wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", [WIDE, NARROW], ids=["wide", "narrow"])
def test_it_fits_and_is_accessible(browser, local, view, scheme):
    context = browser.new_context(viewport=view, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.set_default_timeout(20_000)
    opened(page, local)
    say(page, "long: " + "x" * 60)
    page.locator(ANSWER).wait_for()
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= view["width"]
    for button in page.get_by_role("button").all():
        assert button.bounding_box()["height"] >= 44
    page.evaluate(AXE_FILE_PATH.read_text("utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found] == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == ("rgb(22, 25, 27)" if scheme == "dark" else "rgb(252, 251, 248)")
    context.close()


def test_what_a_model_writes_is_text(page, local, engine):
    opened(page, local)
    page.locator("#log").wait_for()
    page.evaluate("() => void show('assistant', '<img src=x onerror=alert(1)> & \u2028')")
    assert page.locator("img").count() == 0
    assert "<img" in page.locator(".assistant").inner_text()


def test_it_is_one_file_that_may_ask_this_server_alone(local):
    answer = local.http.get("/")
    assert answer.headers["Content-Security-Policy"] == POLICY and "'none'" in POLICY
    assert not re.search(r"https?://|\bsrc=|@import|url\(", answer.text)
