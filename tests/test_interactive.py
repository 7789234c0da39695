"""What every interactive figure keeps to, as book/_static/README.md says; no browser is needed."""

import json
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

BOOK = Path(__file__).resolve().parents[1] / "book"
FILES = sorted((BOOK / "_static").glob("*.html"))
figures = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
ELSEWHERE = re.compile(
    r"https?://(?!www\.w3\.org/2000/svg)|\bfetch\(|\bimport\b|\bsrc=|@import|url\("
)


def shown(name: str) -> list[str]:
    """The figure as the notebooks show it, filled."""
    cells = [
        cell
        for path in BOOK.glob("*.ipynb")
        for cell in json.loads(path.read_text("utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    html = ["".join(o.get("data", {}).get("text/html", "")) for c in cells for o in c["outputs"]]
    return [text for text in html if f'class="{name}-figure"' in text]


@figures
def test_a_notebook_shows_it_once_as_one_element(path):
    (html,) = shown(path.stem)
    for text in (html, path.read_text("utf-8")):
        (root,) = BeautifulSoup(text, "html.parser").find_all(recursive=False)
        assert root.name == "div" and root["class"] == [f"{path.stem}-figure"]
    style = re.sub(
        r"@media[^{]*", "", path.read_text("utf-8").split("<style>")[1].split("</style")[0]
    )
    selectors = [one for rule in re.findall(r"([^{}]+)\{", style) for one in rule.split(",\n")]
    assert [s for s in selectors if f".{path.stem}-figure" not in s and s.strip()] == []
    assert f'".{path.stem}-figure:not([data-on])"' in html and 'dataset.on = "1"' in html


@figures
def test_without_its_script_it_is_a_picture_and_a_sentence(path):
    (html,) = shown(path.stem)
    root = BeautifulSoup(html, "html.parser")
    for svg in root.find_all("svg"):
        assert svg["role"] == "img" and len(svg["aria-label"]) > 20
    assert len(root.find("svg").find_all(["path", "line", "circle", "rect"])) > 5
    (say,) = root.select(".say")
    assert len(say.text) > 20
    assert say.get("aria-live") == "polite" or say.get("role") == "status"
    hidden = "visibility:hidden" in html or root.select("[hidden]")
    assert hidden, "controls that do nothing are shown"


@figures
def test_a_picture_that_is_a_control_has_keys_and_fingers(path):
    html = path.read_text("utf-8")
    if 'addEventListener("pointer' not in html:
        assert BeautifulSoup(html, "html.parser").find(["input", "select", "button"])
        return
    wanted = ('role: "slider"', "tabindex", "aria-valuetext", "ArrowLeft", "Home", "End", "keydown")
    assert [word for word in (*wanted, "touch-action:pan-y") if word not in html] == []


@figures
def test_it_asks_for_nothing_and_takes_the_pages_colours(path):
    html = path.read_text("utf-8")
    assert not ELSEWHERE.search(html)
    assert "var(--ns-accent,var(" in html or "var(--ns-accent,#" in html
    assert len(html) < 20_000


def test_there_are_figures_to_look_at():
    assert {"gqa", "rope", "roofline"} <= {path.stem for path in FILES}
