"""The book as one PDF, printed from the built site: `make site` runs this after `make book`."""

import re

import pdf
import pytest
from bs4 import BeautifulSoup
from pypdf import PageObject, PdfReader
from site_visit import CHAPTERS, missing

REASON = missing()
FOLDED = """
<article class="bd-article"><h1 id="top">A page<a class="headerlink" href="#top">#</a></h1>
<a href="day02.html#end">there</a> <a href="https://example.org/x.html">away</a>
<details class="hide"><summary>Show</summary><div class="cell_input"><pre>plt.plot(x)</pre></div>
</details>
<details class="hide"><summary>Show</summary><div class="cell_input"><pre># nanoserve/layers.py
import torch</pre></div></details>
<details><summary>Solution</summary>42</details></article>
"""


@pytest.fixture(scope="module")
def printed():
    if REASON is not None:
        pytest.skip(REASON)
    assert pdf.main() == 0
    return PdfReader(pdf.PDF)


def test_folded_code_is_named_the_package_shown_and_solutions_opened():
    body, has_math = pdf.article(FOLDED, "book/day01", ["book/day01", "book/day02"])
    text = body.get_text()
    assert "plt.plot" not in text and "The code of this cell is in day01.ipynb." in text
    assert "# nanoserve/layers.py" in text and body.select_one("details").has_attr("open")
    assert not body.select("details.hide, .headerlink") and not has_math


def test_links_stay_inside_the_document():
    body, _ = pdf.article(FOLDED, "book/day01", ["book/day01", "book/day02"])
    links = [a["href"] for a in body.select("a")]
    assert links == ["#day02--end", "https://example.org/x.html"]
    assert body.h1["id"] == "day01--top"


def test_every_page_of_the_book_is_printed_in_order(printed):
    wanted = []
    for name in CHAPTERS:
        html = (pdf.HTML / f"{name}.html").read_text(encoding="utf-8")
        found = re.compile("<h1>.*?</h1>", re.DOTALL).search(html, html.index('bd-article"'))
        title = BeautifulSoup(found[0], "html.parser")  # all of a page takes long
        title.select_one(".headerlink").decompose()
        wanted.append(title.get_text())
    titles = [entry.title for entry in printed.outline if not isinstance(entry, list)]
    # Where a title is broken into lines, the browser leaves the space out.
    assert ["".join(t.split()) for t in titles] == ["".join(w.split()) for w in wanted]


def says_something(page: PageObject) -> bool:
    """Whether a page has a text. To read it takes long, and five different strings that are drawn
    are not all spaces."""
    contents = page.get_contents()
    data = b"" if contents is None else contents.get_data()
    drawn = set(re.findall(rb"[<\[(][^\n]*T[jJ]", data))
    return len(drawn) >= 5 or bool(page.extract_text().strip())


def test_no_page_is_left_empty(printed):
    pages = enumerate(printed.pages, 1)
    assert not [number for number, p in pages if not says_something(p) and not p.images]
