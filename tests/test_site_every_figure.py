"""What holds for every figure that answers to a reader (book/_static/README.md).

It is asked of each that a notebook shows: without a script, by a finger, by the keyboard.
"""

import pytest
from site_visit import CHAPTERS, NARROW, ROOT, missing, said

REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
NAMES = sorted(path.stem for path in (ROOT / "book/_static").glob("*.html"))
FIGURES = [
    (f"book/{path.stem}", f".{name}-figure")
    for path in sorted((ROOT / "book").glob("*.ipynb"))
    for name in NAMES
    if f"_static/{name}.html" in path.read_text("utf-8")
]
CONTROLS = "svg[role=slider], input[type=range], select, button, input"
every_figure = pytest.mark.parametrize("name, selector", FIGURES)


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
    assert (
        {"book/day04", "book/day06", "book/day11"} <= {name for name, _ in FIGURES} <= set(CHAPTERS)
    )
