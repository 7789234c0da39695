"""Cells that book/tangle.py cannot place: each is refused by name, and nothing is written."""

import pytest
import tangle
from cells import CellError
from readers import write_book

PIECES = """# nanoserve/pieces.py
\"\"\"Pieces to build with.\"\"\"
from torch import nn


class Norm(nn.Module):
    pass
"""


@pytest.fixture
def book(tmp_path, package):
    book = write_book(tmp_path / "book", day04=["x = 1", PIECES])
    tangle.main([], book)
    return book


REFUSED = {
    "defined in another chapter": (
        "class Norm:\n    pass",
        2,
        r"Norm is already .*day04.ipynb, cell 1",
    ),
    "constant defined again": ("A = 1\nA = 2", 3, "A is defined twice"),
    "a call": ("print(1)", 2, "only imports, definitions and constants"),
    "a loop": ("A = 1\nfor i in range(3):\n    A += i", 3, "only imports"),
    "two names at once": ("A, B = 1, 2", 2, "only imports"),
    "augmented": ("A = 1\nA += 1", 3, "only imports"),
    "two statements on a line": ("A = 1; B = 2", 2, "one statement to a line"),
    "import with a comment": ("import os  # why\nA = os.sep", 2, "would be lost"),
    "comment over an import": ("# why\nimport os\nA = os.sep", 3, "would be lost"),
    "comment after imports only": ("import os\n# why", 2, "would be lost"),
    "star import": ("from os import *", 2, "cannot be merged"),
    "relative import": ("from . import config", 2, "cannot be merged"),
    "future import": ("from __future__ import annotations", 2, "cannot be merged"),
    "other import of a name": ("from os import nn\nA = nn", None, "nn is already `from torch"),
    "imported and defined": ("def nn():\n    pass", None, "nn is both imported and defined"),
    "second docstring": ('"""Other."""\nA = 1', None, "has a docstring already"),
    "magic": ("%timeit 1\nA = 1", 2, "invalid syntax"),
    "syntax error": ("def f(:\n    pass", 2, "invalid syntax"),
    "second header": ("A = 1\n# nanoserve/other.py\nB = 2", 3, "the cell's first"),
    "nothing": ("# no code", None, "nothing to put"),
}


@pytest.mark.parametrize("source, line, why", REFUSED.values(), ids=REFUSED)
def test_refusal_names_the_cell(book, package, source, line, why):
    before = (package / "pieces.py").read_text("utf-8")
    write_book(book, day06=["x = 1", "y = 2", "# nanoserve/pieces.py\n" + source])
    where = "day06.ipynb, cell 2" + (f", line {line}" if line and "already" not in why else "")
    with pytest.raises(CellError, match=why) as caught:
        tangle.main([], book)
    assert str(caught.value).startswith(where)
    assert (package / "pieces.py").read_text("utf-8") == before


@pytest.mark.parametrize("header", ["#nanoserve/a.py", "# nanoserve/a", "x = 1\n# nanoserve/a.py"])
def test_header_that_is_almost_one_is_refused(book, header):
    write_book(book, day06=[header + "\nA = 1"])
    with pytest.raises(CellError, match=r"day06.ipynb, cell 0, line \d: the line that names"):
        tangle.main([], book)
