"""The book's own Sphinx extensions, without a build."""

import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch
from docutils import nodes

from nanoserve.comparison import Scoreboard

BOOK = Path(__file__).parents[1] / "book"
sys.path[:0] = [str(BOOK / "_ext"), str(BOOK / "figures")]

import days  # noqa: E402
import feed  # noqa: E402
import lean  # noqa: E402
import slim  # noqa: E402
import strip  # noqa: E402
import verdicts  # noqa: E402


def page(*paragraphs: list[nodes.Node]) -> nodes.document:
    doc = nodes.document("", "")
    doc += nodes.title("", "Day 4: RMSNorm and RoPE")
    for children in paragraphs:
        doc += nodes.paragraph("", "", *children)
    return doc


def em(words: str) -> list[nodes.Node]:
    return [nodes.emphasis("", words)]


BYLINE = em("2026-06-19 · 20 minutes · builds layers.py · checked against transformers")


def test_byline_gives_date_title_and_summary():
    strip_image = [nodes.image(uri="strip.svg", alt="the block")]
    doc = page(BYLINE, strip_image, [nodes.Text("A norm keeps\nthe scale.")])
    day = days.read_day("book/day04", doc)
    title = "Day 4: RMSNorm and RoPE"
    assert day == days.Day("book/day04", title, date(2026, 6, 19), "A norm keeps the scale.")
    assert doc[1]["classes"] == ["ns-byline"]


@pytest.mark.parametrize("times", ["9 minutes", "20 minutes to read, 50 to work through"])
def test_a_byline_says_how_long_reading_and_working_take(times):
    doc = page(em(f"2026-06-19 · {times} · builds layers.py"), [nodes.Text("A norm.")])
    assert days.read_day("book/day04", doc).summary == "A norm."
    doc = page(em(f"2026-06-19 · {times}, or so · builds layers.py"), [nodes.Text("A norm.")])
    assert days.read_day("book/day04", doc) is None


@pytest.mark.parametrize("first", [em("20 minutes"), [nodes.Text("2026-06-19 · 20 minutes · x")]])
def test_a_page_without_a_byline_is_no_day(first):
    assert days.read_day("book/day04", page(first)) is None


def test_feed_is_atom_newest_first():
    two = [days.Day(f"book/day0{n}", f"Day {n}: a < b", date(2026, 6, 15 + n), "s") for n in (2, 3)]
    root = ElementTree.fromstring(feed.atom(two, "nanoserve", "us", "https://example.org/book/"))
    ns = {"a": feed.ATOM}
    assert [e.text for e in root.findall("a:entry/a:title", ns)] == ["Day 3: a < b", "Day 2: a < b"]
    assert root.find("a:updated", ns).text == "2026-06-18T00:00:00Z"
    links = [e.get("href") for e in root.findall("a:entry/a:link", ns)]
    assert links[0] == "https://example.org/book/book/day03.html"


def test_scripts_that_a_page_does_not_need_are_dropped():
    def script(name=None, body=""):
        return SimpleNamespace(filename=name, attributes={"body": body})

    math = [script("_static/../mathjax/startup.js"), script(body="window.MathJax = {}")]
    thebe = [script("_static/sphinx-thebe.js"), script(body="const THEBE_JS_URL = 1")]
    keep = script("_static/doctools.js")
    scripts = [*math, *thebe, keep]
    assert [s for s in scripts if lean.wanted(s, math=False)] == [keep]
    assert [s for s in scripts if lean.wanted(s, math=True)] == [*math, keep]


@pytest.mark.parametrize("kind", ["design", "search"])
def test_what_only_some_pages_need_is_on_those_alone(kind):
    name = {"design": "_static/design-tabs.js"}.get(kind)
    body = "" if name else lean.FROM_A_FILE
    asset = SimpleNamespace(filename=name, attributes={"body": body})
    assert lean.wanted(asset, math=True, **{kind: True})
    assert not lean.wanted(asset, math=True)


def test_code_keeps_its_colours_and_its_text():
    code = '<div class="highlight"><pre><span class="k">def</span> <span class="n">f</span></pre>'
    fold = f"<details>{code}</details>"
    outside = '<span class="n">128 KiB</span>'
    assert lean.lighter(outside) == outside
    assert lean.lighter(code) == code.replace('<span class="n">f</span>', "f")
    assert '<pre tabindex="0">' in lean.lighter(fold)


def test_a_wide_output_says_how_wide_it_is():
    def output(line: str) -> str:
        kind = "output stream highlight-myst-ansi notranslate"
        return f'<div class="{kind}"><div class="highlight"><pre><span></span>{line}\n</pre>'

    assert lean.lighter(output("&lt;" * 48)) == output("&lt;" * 48)
    wide = output("short\n" + "&lt;" * 49)
    assert lean.lighter(wide) == wide.replace("<pre>", '<pre style="--ns-columns: 49">')
    code = f'<div class="highlight"><pre>{"x" * 70}</pre>'
    assert lean.lighter(code) == code


@pytest.mark.parametrize(
    "css, left",
    [
        (".a{x:1}.b{x:2}", ".a{x:1}"),
        (".a .b,.a:hover,p{x:1}", ".a:hover,p{x:1}"),
        ("p:not(.b){x:1}", "p:not(.b){x:1}"),
        (":is(.a,.b) i{x:1}", ":is(.a,.b) i{x:1}"),
        ("@media print{.b{x:1}}@media print{.a{x:1}}", "@media print{.a{x:1}}"),
        ("@font-face{src:url(b.woff2)}", "@font-face{src:url(b.woff2)}"),
        (r".a\:b{x:1}", ""),
    ],
)
def test_a_rule_stays_while_a_page_has_its_class(css, left):
    assert slim.purge(css, {"a"}) == left


def test_a_style_sheet_that_cannot_be_read_stops_the_build():
    with pytest.raises(ValueError, match="line 1 of a style sheet"):
        slim.purge(".a{x:1} }", {"a"})


def compared(html: str, tag: str = "tag_comparison") -> nodes.document:
    """A page with one cell that put out `html`."""
    cell = nodes.container("", nodes.raw("", html, format="html"), classes=["cell", tag])
    doc = nodes.document("", "")
    doc += cell
    return doc


def test_the_landing_page_counts_what_the_comparisons_found():
    board = Scoreboard("Day 5, SwiGLU")
    for name in ("one", "two"):
        board.compare(None, "MLP", name, torch.ones(2), torch.ones(2))
    board.compare(None, "loose", "three", torch.ones(2), torch.ones(2), atol=1e-2)
    html = board._repr_html_()
    assert verdicts.matched(compared(html)) == 2
    assert verdicts.matched(compared(html, tag="tag_other")) == 0
    rows = row(4, "norm", "q, k") + "<tr><th>Week 2</th></tr>\n" + row(5, "SwiGLU", "every MLP")
    filled = verdicts.fill(rows, {"04": 7, "05": 1234}, {"05": "d5.html", "04": "d4"}, "index")
    assert '<td>5: <a href="d5.html">SwiGLU</a></td><td>every MLP</td>' in filled
    assert [line.rpartition("<td")[2] for line in filled.splitlines()] == [
        ' class="pass">7</td></tr>',
        "<tr><th>Week 2</th></tr>",
        ' class="pass">1,234</td></tr>',
    ]


def row(day: int, name: str, compared: str) -> str:
    cells = f"<td>{day}: {name}</td><td>{compared}</td>"
    return f'<tr data-day="{day:02}">{cells}<td class="pass"></td></tr>\n'


def test_days_to_come_are_named_in_one_row_without_links():
    rows = row(7, "block", "all") + row(8, "first", "") + row(9, "second", "") + "</tbody>"
    filled = verdicts.fill(rows, {"07": 1}, {"07": "day07.html"}, "index").splitlines()
    names = "<span>8: first</span>, <span>9: second</span>"
    coming = f'<tr class="ns-coming"><td colspan="4">to come: {names}</td></tr>'
    assert filled[1:] == [coming, "</tbody>"] and "<a " not in filled[1]


def test_a_day_without_a_verdict_or_with_an_empty_cell_is_a_warning(caplog):
    verdicts.fill(row(6, "attention", "every one"), {"06": 3}, {"06": "day06.html"}, "index")
    assert not caplog.text
    verdicts.fill(row(5, "SwiGLU", ""), {"06": 3}, {"05": "day05.html"}, "index")
    assert "no comparison of Day 05 printed a verdict" in caplog.text
    assert "say what Day 05 compares and catches" in caplog.text


def test_the_landing_page_has_a_row_for_every_day_of_the_strips():
    text = (BOOK / "index.md").read_text("utf-8")
    rows = [found for found in map(verdicts.ROW.fullmatch, text.splitlines()) if found]
    assert [(int(found[1]), found[2]) for found in rows] == [(n, f"{n}: ") for n in strip.DAYS]
