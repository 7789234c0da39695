"""The spelling of every page: an English dictionary and the book's own words.

A word that is right and unknown goes into tests/words.txt, in its place in the alphabet.
"""

import re
from pathlib import Path

import nbformat
import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.front_matter import front_matter_plugin
from spellchecker import SpellChecker
from tangle import BOOK

HERE = Path(__file__).parent
PAGES = [
    HERE.parent / "README.md",
    HERE.parent / "weights" / "README.md",
    *sorted([*BOOK.glob("*.md"), *BOOK.glob("*.ipynb")]),
]
WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


@pytest.fixture(scope="module")
def dictionary():
    english = SpellChecker(distance=1)
    english.word_frequency.load_words((HERE / "words.txt").read_text("utf-8").split())
    return english


def prose(markdown: str) -> str:
    """The text that a reader sees: no code, no math, no address, no HTML."""
    parser = MarkdownIt("commonmark").enable("table")
    parser.use(dollarmath_plugin).use(front_matter_plugin)
    inline = (token for token in parser.parse(markdown) if token.type == "inline")
    return "\n".join(
        "".join(child.content if child.type == "text" else " " for child in token.children)
        for token in inline
    )


def misspelt(text: str, dictionary) -> list[str]:
    """Words of `text` that no dictionary has. Names of things in capitals are let be."""
    words = {word.removesuffix("'s") for word in WORD.findall(text) if not word[1:].isupper()}
    return sorted(word for word in words if len(word) > 2 and dictionary.unknown([word]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_words_are_spelt_right(page, dictionary):
    if page.suffix == ".ipynb":
        cells = nbformat.read(page, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = page.read_text("utf-8")
    assert misspelt(prose(text), dictionary) == []


def test_a_misspelling_is_seen(dictionary):
    text = prose("An *atention* map, `wieght` and $x_{raed}$.")
    assert misspelt(text, dictionary) == ["atention"]


def test_word_list_is_in_order():
    words = (HERE / "words.txt").read_text("utf-8").splitlines()
    assert words == sorted(set(words), key=str.casefold)
