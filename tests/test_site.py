"""The built site as a reader meets it, in a real browser: `make site`, after `make book`.

Each page is visited once (site_visit.py) and every test asks that visit its own question.
"""

from itertools import pairwise
from urllib.parse import unquote, urldefrag

import pytest
from site_browser import first_paint
from site_visit import CHAPTERS, NARROW, PAGES, SITE, Site, listed, missing, weights

REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def site(address, request):
    """With a visit on its way to each page that some test here will ask for."""
    found = Site(address)
    here = [item for item in request.session.items if item.path == request.path]
    asked = [item.callspec.params for item in here if hasattr(item, "callspec")]
    for params in asked:
        for kind in params.keys() & {"visit", "chapter"}:
            found.want(params[kind])
    yield found
    found.close()


@pytest.fixture(params=PAGES)
def visit(site, request):
    return site.visit(request.param)


@pytest.fixture(params=CHAPTERS)
def chapter(site, request):
    return site.visit(request.param)


def test_nothing_complains_over_http_and_from_a_file(visit):
    assert not visit.complaints, listed(visit.complaints)


def test_no_request_leaves_the_page_s_own_origin(visit):
    assert not visit.outside, listed(visit.outside)


def test_it_is_one_page_from_both_and_every_font_came(visit):
    for seen in (visit.light, visit.dark, visit.from_file):
        assert seen["title"] == visit.light["title"] != ""
        assert not seen["fonts"] and not seen["broken"]


def test_no_dead_link_and_no_dead_anchor(site, visit):
    dead = []
    for url in {*visit.light["links"], *visit.light["heads"]}:
        place, fragment = urldefrag(url)
        if not place.startswith(site.address):
            continue
        path = unquote(place.removeprefix(site.address)).split("?")[0]
        name = path.removesuffix(".html")
        there = (SITE / path).is_file()
        if there and fragment and name in PAGES:
            there = unquote(fragment) in site.visit(name).light["ids"]
        if not there:
            dead.append(url)
    assert not dead, listed(dead)


def test_no_id_twice(visit):
    ids = visit.light["ids"]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    assert not twice, listed(twice)


def test_every_picture_says_what_it_shows(visit):
    assert not visit.light["silent"], listed(visit.light["silent"])


def test_every_picture_is_shown_in_its_size_or_opens_in_it(visit):
    for seen in (visit.light, visit.dark):
        assert not seen["shut"], listed(seen["shut"])


def test_the_words_of_a_drawing_can_be_read_at_390_pixels(visit):
    assert not visit.dark["small_words"], listed(visit.dark["small_words"])


def test_headings_go_down_one_level_at_a_time(chapter):
    levels = chapter.light["headings"]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels)), levels


@pytest.mark.parametrize("way", ["light", "from_file"])
def test_math_is_rendered(chapter, way):
    seen = getattr(chapter, way)
    assert not seen["raw_math"] and not seen["bad_math"], listed(seen["raw_math"])


def test_there_is_math_to_render_and_it_is_loaded_only_there(site):
    for name in CHAPTERS:
        seen = site.visit(name).light
        loads = any("/mathjax/" in url for url in seen["loaded"])
        assert loads == (seen["formulas"] > 0), name
    assert sum(site.visit(name).light["formulas"] for name in CHAPTERS) > 20


def test_nothing_sticks_out_at_390_pixels(visit):
    seen = visit.dark
    assert seen["window_width"] == NARROW["width"]
    assert seen["page_width"] <= seen["window_width"], listed(seen["sticking_out"])


def test_code_never_scrolls_sideways_at_1280_pixels(chapter):
    assert not chapter.light["scrolling_code"], listed(chapter.light["scrolling_code"])
    assert not chapter.light["small_code"] and not chapter.dark["small_code"]


def test_no_output_is_cut_at_390_pixels(chapter):
    assert not chapter.dark["scrolling_output"], listed(chapter.dark["scrolling_output"])
    assert not chapter.dark["small_output"] and not chapter.light["small_output"]
    assert not chapter.dark["small_notes"], listed(chapter.dark["small_notes"])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, theme):
    found = getattr(visit, theme)["axe"]
    assert not found, listed(found)


def test_dark_mode_switches_the_page(visit):
    assert (visit.light["theme"], visit.dark["theme"]) == ("light", "dark")
    assert visit.light["ground"] != visit.dark["ground"]


def test_a_chapter_weighs_less_than_a_megabyte_and_a_half(site, chapter):
    raw, sent = weights(site, chapter.light)
    assert 10_000 < sent < raw < 1.5 * MEGABYTE


def test_the_first_paint_comes_within_a_second(site, chapter, request):
    times = [chapter.dark["first_paint"]]
    while min(times) >= 1000 and len(times) < 10:  # a busy machine is not a slow page
        page = request.getfixturevalue("browser").new_page(viewport=NARROW)
        page.goto(f"{site.address}{chapter.name}.html")
        times.append(first_paint(page))
        page.close()
    assert min(times) < 1000, times


def test_next_and_previous_walk_through_the_whole_book(site):
    addresses = [f"{site.address}{name}.html" for name in CHAPTERS]
    seen = [site.visit(name).light for name in CHAPTERS]
    assert [one["next"] for one in seen] == [*addresses[1:], None]
    assert [one["previous"] for one in seen] == [None, *addresses[:-1]]
    for before, after in pairwise(seen):
        assert after["title"] in before["next_name"] and before["title"] in after["previous_name"]
