"""What a reader does on the built site, in a real browser: `make site`, after `make book`.

What a page shows by itself is asked in test_site.py, of one visit of each.
"""

import pytest
from site_browser import listen, set_theme
from site_visit import CHAPTERS, NARROW, SITE, WIDE, listed, missing

REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture
def page(browser):
    """A page of its own, wide and light, that fails on any complaint of its console."""
    context = browser.new_context(viewport=WIDE, color_scheme="light")
    fresh, log = context.new_page(), []
    listen(fresh, log, [])
    yield fresh
    context.close()
    assert not log, listed(log)


def test_a_figure_too_small_to_read_opens_by_itself(page, address):
    page.set_viewport_size(NARROW)
    page.goto(f"{address}book/day04.html")
    page.locator(".cell_output img").first.click()
    page.wait_for_url("**/_images/*.png")


def test_dark_mode_is_remembered_on_the_next_page(page, address):
    page.goto(f"{address}{CHAPTERS[0]}.html")
    set_theme(page, "dark")
    page.goto(f"{address}{CHAPTERS[1]}.html")
    assert page.locator("html").get_attribute("data-theme") == "dark"


def test_the_first_page_opens_the_book_and_next_and_previous_can_be_pressed(page, address):
    page.goto(f"{address}index.html")
    page.wait_for_url(f"{address}{CHAPTERS[0]}.html")
    for link, name in (("a.right-next", CHAPTERS[1]), ("a.left-prev", CHAPTERS[0])):
        page.locator(link).click()
        page.wait_for_url(f"{address}{name}.html", wait_until="domcontentloaded")


@pytest.mark.parametrize("way", ["http", "file"])
def test_search_finds_rope(page, address, way):
    page.goto(f"{address if way == 'http' else SITE.as_uri() + '/'}{CHAPTERS[0]}.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("RoPE")
    page.keyboard.press("Enter")
    page.get_by_text("Search finished").wait_for()
    found = page.locator("#search-results li a").evaluate_all("all => all.map((a) => a.href)")
    assert any("/book/day04.html" in url for url in found), listed(found)


def test_a_quoted_message_stands_as_the_program_says_it(page, address):
    name = "book/when-it-does-not-work"
    page.goto(f"{address}{name}.html")
    shown = page.locator("article").text_content()
    source = (SITE.parents[1] / f"{name}.md").read_text("utf-8").splitlines()
    messages = [line[2:].replace("`", "") for line in source if line.startswith("> ")]
    assert len(messages) > 20
    assert not [message for message in messages if message not in shown]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_verdicts_on_the_landing_page_are_in_sight_on_a_telephone(page, address, theme):
    page.set_viewport_size(NARROW)
    page.goto(f"{address}{CHAPTERS[0]}.html")
    set_theme(page, theme)
    verdicts = page.locator("tr:not(.ns-coming) > td.pass")
    days = [name for name in CHAPTERS if name.startswith("book/day")]
    boxes = [verdict.bounding_box() for verdict in verdicts.all()]
    assert len(boxes) == len(days) - 1  # Day 1 compares nothing
    assert all(box["x"] > 0 and box["x"] + box["width"] <= NARROW["width"] for box in boxes)
    # In sight, and not behind the edge of a box that scrolls.
    cut = verdicts.evaluate_all(
        """all => all.filter((cell) => {
          const right = (node) => node.getBoundingClientRect().right;
          for (let node = cell; node; node = node.parentElement)
            if (right(node) + 1 < right(cell)) return true;
        }).map((cell) => cell.parentElement.textContent)"""
    )
    assert not cut, listed(cut)
