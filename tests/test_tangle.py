"""The book's cells and the modules on disk, as `python book/tangle.py` keeps them."""

import ast
import shutil
import subprocess
import sys

import pytest
import tangle
from cells import CellError
from readers import write_book

NORM = '''# nanoserve/pieces.py
"""Pieces to build with."""

import torch
from torch import nn

# Why it is here.
class Norm(nn.Module):  # a class
    def forward(self, x):
        return x / torch.linalg.norm(x)
        # the gain comes later

# What follows the norm.
'''
ROPE = """# nanoserve/pieces.py
import math
from os import PathLike
from functools import cache
import torch
# Radians.
TURN = 2 * math.pi
HALF = TURN/2  # of a turn

# Slow.
@cache
def rotate(x: torch.Tensor, path: PathLike):
    return x


# Nothing more
# today.
"""
MODULE = '''"""Pieces to build with.

Built in the book: day04, day05. Edit there, then run book/tangle.py.
"""

import math
from functools import cache
from os import PathLike

import torch
from torch import nn


# Why it is here.
class Norm(nn.Module):  # a class
    def forward(self, x):
        return x / torch.linalg.norm(x)
        # the gain comes later


# What follows the norm.


# Radians.
TURN = 2 * math.pi
HALF = TURN / 2  # of a turn


# Slow.
@cache
def rotate(x: torch.Tensor, path: PathLike):
    return x


# Nothing more
# today.
'''


@pytest.fixture
def book(tmp_path, package):
    return write_book(tmp_path / "book", day04=["x = 1", NORM], day05=[ROPE])


def test_module_reads_as_if_written_by_hand(book, package):
    assert tangle.main([], book) == 0
    assert (package / "pieces.py").read_text("utf-8") == MODULE
    for command in (["check"], ["format", "--check"]):
        settings = ["--config", tangle.BOOK.parent / "pyproject.toml"]
        ruff = [sys.executable, "-m", "ruff", *command, *settings, "--no-cache", package]
        subprocess.run(ruff, check=True)


def test_second_run_writes_nothing(book, package, capsys):
    tangle.main([], book)
    before = (package / "pieces.py").stat()
    assert capsys.readouterr().out == "wrote nanoserve/pieces.py\n"
    assert tangle.main([], book) == 0
    assert (package / "pieces.py").stat().st_mtime_ns == before.st_mtime_ns
    assert (package / "pieces.py").stat().st_ino == before.st_ino
    assert capsys.readouterr().out == ""
    assert sorted(p.name for p in package.iterdir()) == ["__init__.py", "pieces.py"]


def test_deleted_module_is_rebuilt(book, package):
    tangle.main([], book)
    (package / "pieces.py").unlink()
    assert tangle.main(["--check"], book) == 1
    tangle.main([], book)
    assert (package / "pieces.py").read_text("utf-8") == MODULE


def test_check_shows_the_difference_and_leaves_it(book, package, capsys):
    tangle.main([], book)
    assert tangle.main(["--check"], book) == 0
    edited = MODULE.replace("2 * math.pi", "6.28")
    (package / "pieces.py").write_text(edited, "utf-8")
    capsys.readouterr()
    assert tangle.main(["--check"], book) == 1
    assert "-TURN = 6.28\n+TURN = 2 * math.pi\n" in capsys.readouterr().out
    assert (package / "pieces.py").read_text("utf-8") == edited


def test_check_sees_a_module_that_the_book_no_longer_builds(book, package, capsys):
    tangle.main([], book)
    write_book(book, day04=["x = 1"], day05=["x = 2"])
    assert tangle.main(["--check"], book) == 1
    assert "nanoserve/pieces.py is no longer built" in capsys.readouterr().out


def test_cells_that_need_the_same_import_share_it(book, package):
    write_book(
        book, day05=[ROPE.replace("import torch", "import torch\nfrom torch import nn, cos")]
    )
    tangle.main([], book)
    # cos is not used.
    assert (package / "pieces.py").read_text("utf-8") == MODULE


def test_code_is_the_same_without_ruff(book, package, monkeypatch):
    module = tangle.from_book(book)["pieces"]
    laid_out = tangle.tidy(module.render(), "pieces")
    monkeypatch.setattr(tangle.importlib.util, "find_spec", lambda name: None)
    plain = tangle.tidy(module.render(), "pieces")
    assert plain != laid_out
    texts = (ast.parse(text).body for text in (plain, laid_out))
    first, second = (sorted(map(ast.dump, body)) for body in texts)
    assert first == second
    with pytest.raises(CellError, match="ruff"):
        tangle.main([], book)


def test_file_written_by_hand_is_not_lost(book, package):
    (package / "pieces.py").write_text("def by_hand():\n    return 1\n", "utf-8")
    with pytest.raises(CellError, match=r"nanoserve/pieces.py is written by hand.* by_hand"):
        tangle.main([], book)
    assert (package / "pieces.py").read_text("utf-8").startswith("def by_hand")


def test_copies_of_notebooks_are_not_chapters(book, package):
    shutil.copy(book / "day04.ipynb", book / "day04-Copy1.ipynb")
    tangle.main([], book)
    assert (package / "pieces.py").read_text("utf-8") == MODULE
