"""The figures that answer to a reader, one by one: what each says to a mouse, a finger, a key."""

import re

import pytest
from site_visit import NARROW, missing, said

REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
ROPE, GQA = "book/day04", "book/day06"
ROOFLINE, SCHEDULER, LOAD = "book/day11", "book/day16", "book/day21"


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
