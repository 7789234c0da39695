"""The figures that answer to a reader, by mouse, touch and keyboard, and without any script.

What holds for all of them is asked of each that a notebook shows (book/_static/README.md).
"""

import re

import pytest
from site_browser import listen
from site_visit import CHAPTERS, NARROW, ROOT, SITE, WIDE, listed, missing

REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
ROPE, GQA = "book/day04", "book/day06"
ROOFLINE, SCHEDULER, LOAD = "book/day11", "book/day16", "book/day21"
NAMES = sorted(path.stem for path in (ROOT / "book/_static").glob("*.html"))
FIGURES = [
    (f"book/{path.stem}", f".{name}-figure")
    for path in sorted((ROOT / "book").glob("*.ipynb"))
    for name in NAMES
    if f"_static/{name}.html" in path.read_text("utf-8")
]
CONTROLS = "svg[role=slider], input[type=range], select, button, input"
every_figure = pytest.mark.parametrize("name, selector", FIGURES)


@pytest.fixture
def opened(browser):
    """A function that opens a page from its file and gives a figure of it; nothing may complain."""
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


def said(figure) -> str:
    return figure.locator(".say").inner_text()


def score(figure) -> float:
    return float(re.search(r"score (-?[\d.]+)", said(figure))[1])


def hands(figure) -> list[str]:
    """Where each of the dials' hands points to."""
    return figure.locator(".hand").evaluate_all(
        "all => all.map((hand) => hand.getAttribute('x2') + ' ' + hand.getAttribute('y2'))"
    )


def test_rope_turns_every_pair_with_the_mouse_and_keeps_the_score(opened):
    page, figure = opened(ROPE, ".rope-figure")
    slider = figure.locator("input.n")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    before, words, turned = score(figure), said(figure), hands(figure)
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    assert said(figure) != words and score(figure) == before
    moved = [a != b for a, b in zip(turned, hands(figure), strict=True)]
    assert len(moved) == 64 and sum(moved) > 50  # the slowest pairs hardly turn


def test_rope_by_keyboard(opened):
    page, figure = opened(ROPE, ".rope-figure")
    figure.locator("input.d").focus()
    before = score(figure)
    page.keyboard.press("ArrowRight")
    assert "distance 2," in said(figure) and score(figure) != before
    page.keyboard.press("End")
    assert "distance 64," in said(figure)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "head"
    head = said(figure)
    page.keyboard.press("ArrowDown")
    assert said(figure) != head
    figure.locator("select.view").select_option("far")
    figure.locator("input.d").focus()
    page.keyboard.press("End")
    assert "distance 131,072," in said(figure)
    rescaled = score(figure)
    figure.locator(".rescale").focus()
    page.keyboard.press("Space")
    assert score(figure) != rescaled


def test_rope_walks_until_it_is_stopped(opened):
    page, figure = opened(ROPE, ".rope-figure")
    before, walk = said(figure), figure.locator(".walk")
    walk.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "([node, old]) => node.innerText !== old",
        arg=[figure.locator(".say").element_handle(), before],
    )
    page.keyboard.press("Enter")
    assert walk.get_attribute("aria-pressed") == "false"


def test_gqa_by_mouse_and_by_keyboard(opened):
    page, figure = opened(GQA, ".gqa-figure")
    assert said(figure).startswith("Query head 5 reads KV head 1 of 8")
    figure.locator("rect.q").nth(30).click()
    assert said(figure).startswith("Query head 30 reads KV head 7 of 8, as do heads 28, 29 and 31")
    figure.locator("svg").focus()
    page.keyboard.press("ArrowRight")
    assert said(figure).startswith("Query head 31 reads")
    page.keyboard.press("Home")
    assert said(figure).startswith("Query head 0 reads KV head 0 of 8")
    assert figure.locator("svg").get_attribute("aria-valuetext").startswith("query head 0")
    figure.locator("input:checked").focus()
    page.keyboard.press("ArrowDown")
    assert "KV head 0 of 4" in said(figure) and "16 KiB" in said(figure)
    assert figure.locator("rect.k").count() == 4
    figure.locator("label", has_text="MHA").click()
    assert figure.locator("rect.k").count() == 32 and "its own" in said(figure)


def test_roofline_by_mouse_and_by_keyboard(opened):
    page, figure = opened(ROOFLINE, ".roofline-figure")
    assert "for all 16." in said(figure) and figure.locator("rect").count() == 3
    figure.locator("[data-is=texts]").focus()
    page.keyboard.press("Home")
    assert "for all" not in said(figure)
    assert figure.locator("[data-is=texts]").get_attribute("aria-valuetext") == "1 text"
    page.keyboard.press("End")
    assert "for all 512." in said(figure)
    before = said(figure)
    figure.locator("[data-is=weights]").select_option(label="4 bits")
    assert said(figure) != before
    assert not figure.locator("[data-is=rate]").is_visible()
    figure.locator("[data-is=machine]").select_option(label="your own")
    before = said(figure)
    figure.locator("[data-is=rate]").fill("400")
    assert said(figure) != before


def test_scheduler_by_keyboard(opened):
    page, figure = opened(SCHEDULER, ".scheduler-figure")
    assert said(figure).startswith("Step 40 of 80. B, E, G, H write.")
    figure.locator("input.step").focus()
    page.keyboard.press("Home")
    assert said(figure).startswith("Step 1 of 80. A reads 8 and gets a token.")
    page.keyboard.press("End")
    assert said(figure) == "Step 80 of 80. H writes. Free: 20 of 24 blocks."
    figure.locator("input.longest").focus()
    page.keyboard.press("Space")
    assert "of 64." in said(figure)
    figure.locator("input.blocks").focus()
    for _ in range(18):
        page.keyboard.press("ArrowLeft")
    assert said(figure).endswith("of 6 blocks.")
    assert figure.locator("svg.time .gone").count() > 0
    figure.locator("select.who").select_option("B")
    figure.locator("input.new").focus()
    page.keyboard.press("End")
    assert "Refused: B." in said(figure)
    figure.locator("button.anew").press("Enter")
    assert said(figure).startswith("Step 1 of 80.")


def test_the_load_is_turned_up_by_keys_and_the_loop_is_closed_with_a_finger(opened):
    page, figure = opened(LOAD, ".load-figure", viewport=NARROW, has_touch=True)
    assert "80% of capacity" in said(figure) and "the formula says 3.0 s" in said(figure)
    figure.locator("input.load").focus()
    page.keyboard.press("End")
    assert "120% of capacity" in said(figure) and " 0 refused" in said(figure)
    figure.locator("input.bound").focus()
    page.keyboard.press("Home")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert "at most 2 in the queue" in said(figure) and said(figure).endswith("0.94 a second.")
    assert figure.locator("svg.strip .gone").get_attribute("d")
    figure.locator("input.stop").tap()
    figure.locator("input.closed").tap()
    assert said(figure).startswith("Closed loop: 1 client") and "p99 1.0 s" in said(figure)
    assert figure.locator("input.load").is_disabled()
    figure.locator("button.anew").press("Enter")
    assert "80% of capacity" in said(figure) and not figure.locator("input.stop").is_checked()


@every_figure
def test_without_a_script_the_figure_still_says_something(opened, name, selector):
    _, figure = opened(name, selector, java_script_enabled=False)
    assert len(said(figure)) > 30
    assert figure.locator("svg").first.locator("path, line, circle, rect").count() > 5
    assert not any(control.is_visible() for control in figure.locator(CONTROLS).all())


@every_figure
def test_on_a_telephone_the_figure_fits_and_answers_to_a_finger(opened, name, selector):
    _, figure = opened(name, selector, viewport=NARROW, has_touch=True)
    box = figure.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= NARROW["width"]
    assert figure.evaluate("node => node.scrollWidth <= node.clientWidth")
    control, before = figure.locator(CONTROLS).first, said(figure)
    control.scroll_into_view_if_needed()
    size = control.bounding_box()
    control.tap(position={"x": 0.85 * size["width"], "y": 0.5 * size["height"]})
    assert said(figure) != before


@every_figure
def test_the_first_control_answers_to_the_keyboard_and_is_heard(opened, name, selector):
    page, figure = opened(name, selector)
    before = said(figure)
    figure.locator(CONTROLS).first.focus()
    page.keyboard.press("ArrowLeft")
    assert said(figure) != before
    heard = figure.locator(".say")
    assert heard.get_attribute("aria-live") == "polite" or heard.get_attribute("role") == "status"


def test_the_figures_are_where_these_tests_look():
    assert {selector for _, selector in FIGURES} == {f".{name}-figure" for name in NAMES}
    assert {ROPE, GQA, ROOFLINE} <= {name for name, _ in FIGURES} <= set(CHAPTERS)
