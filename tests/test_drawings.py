"""The book's drawings: what the scripts draw, each day's strip and card, how pages take them."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

BOOK = Path(__file__).parents[1] / "book"
sys.path[:0] = [str(BOOK / "_ext"), str(BOOK / "figures")]

import cards  # noqa: E402
import inline_figures  # noqa: E402
import slim  # noqa: E402
import strip  # noqa: E402


def test_drawings_are_what_the_script_draws():
    for name, content in strip.files().items():
        assert (BOOK / "figures" / name).read_text(encoding="utf-8") == content, name


# What is built in each day of the engine, as its strip shows it; "loop" is the way back.
LIT = {
    8: "model loop", 9: "sampler", 10: "KV cache", 11: "KV cache model",
    12: "text tokenizer text", 13: "requests", 14: "pages", 15: "pages",
    16: "requests scheduler", 17: "scheduler pages", 18: "pages",
    19: "server", 20: "server", 21: "server",
    22: "model GPU", 23: "pages model GPU", 24: "sampler GPU loop", 25: "model GPU",
    26: "server GPU",
}  # fmt: skip


class Noted(strip.Drawing):
    """Which words stand in a lit box, as `LIT` says it."""

    def label(self, x, y, w, h, words, kind="ns-box", ink="ns-text", size=14):
        self.parts += [words] if "ns-lit" in kind.split() else []

    def text(self, x, y, words, kind="ns-text", size=14, anchor="middle"):
        self.parts += [words] if "ns-strong" in kind and not words.startswith("Day") else []

    def wire(self, *points, kind="ns-wire", **kwargs):
        self.parts += ["loop"] if kind == "ns-lit-line" else []

    def add(self, x, y, kind="ns-box", ink="ns-text"):
        self.parts += ["+"] if "ns-lit" in kind else []

    def box(self, x, y, w, h, kind="ns-box", r=7):
        pass


@pytest.mark.parametrize("day", strip.DAYS)
def test_each_day_lights_its_own_piece_and_no_other(day):
    lit = strip.strip(day, Noted).parts
    if day <= strip.MODEL_STANDS:
        names = [piece.words for piece in strip.BLOCK if piece.days == (day,)]
        assert lit == names + ["+", "+"] * (day == strip.MODEL_STANDS) and names
    else:
        assert sorted(" ".join(lit).split()) == sorted(LIT[day].split())


@pytest.mark.parametrize("today, seen", [((4,), "ns-lit"), ((2, 9), "ns-done"), ((5,), "ns-muted")])
def test_a_piece_is_lit_or_done_or_to_come(today, seen):
    assert seen in " ".join(strip.state(today, 4))


@pytest.mark.parametrize("day", [1, 4, 12, strip.EVERY_DAY])
def test_a_card_shows_the_strip_of_its_day(day, tmp_path):
    cards.card(tmp_path / "card.png", f"Day {day}", "checked", day)
    with Image.open(tmp_path / "card.png") as picture:
        assert picture.size == cards.SIZE
        lit = picture.convert("RGB").crop((70, 430, 1200, 630)).getcolors(10**6)
    share = sum(n for n, colour in lit if colour == (0x58, 0xC9, 0xBF))
    assert (share > 5000) == (day in (4, 12))


@pytest.mark.parametrize("path", sorted((BOOK / "figures").glob("*.svg")), ids=lambda p: p.name)
def test_drawings_are_well_formed_and_have_no_ids(path):
    root = ElementTree.parse(path).getroot()
    assert not [e for e in root.iter() if "id" in e.attrib]
    assert root.find("{http://www.w3.org/2000/svg}title").text


def test_inlined_drawing_has_alt_text_and_resolved_links():
    markup = inline_figures.svg_markup(BOOK / "figures/block.svg", 'the "block"', "to-{}".format)
    assert 'role="group" aria-label="the &quot;block&quot;"' in markup
    assert 'href="to-day04"' in markup and "<title>" not in markup
    plain = inline_figures.svg_markup(BOOK / "figures/strip-day04.svg", "strip", str)
    assert 'class="ns-diagram ns-strip"' in plain and 'role="img"' in plain
    small = inline_figures.svg_markup(BOOK / "figures/strip-day16.svg", "strip", str)
    assert 'class="ns-diagram ns-strip ns-small"' in small


@pytest.mark.parametrize("day, end", [(4, ""), (5, " ns-late"), (6, ""), (7, "")])
def test_a_narrow_strip_opens_where_todays_piece_is(day, end):
    markup = inline_figures.svg_markup(BOOK / f"figures/strip-day{day:02}.svg", "strip", str)
    assert f'class="ns-diagram ns-strip{end}"' in markup


def test_a_figure_gets_a_palette_and_looks_the_same(tmp_path):
    path = tmp_path / "figure.png"
    picture = Image.effect_noise((120, 90), 40).convert("RGB")
    picture.save(path)
    before = path.stat().st_size
    slim.shrink_picture(path)
    slim.shrink_picture(path)  # a second build finds it small already
    with Image.open(path) as small:
        assert small.mode == "P" and path.stat().st_size < before
        pairs = zip(small.convert("RGB").tobytes(), picture.tobytes(), strict=True)
        assert max(abs(a - b) for a, b in pairs) < 4
    assert [one.name for one in tmp_path.iterdir()] == ["figure.png"]
