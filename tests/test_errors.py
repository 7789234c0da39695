"""What a notebook shows of an error, in the book and in practice."""

import sys
from types import SimpleNamespace

import pytest
import tangle
from readers import Reader, write_book

JUDGE = """
def judge(act):
    try:
        act()
    except Exception as error:
        raise AssertionError("SwiGLU differs") from error
    raise AssertionError("SwiGLU is off\\nby 2 at position 1")

def use(value):
    return value.shape

def run(act):
    return act()

def bare():
    assert 1 == 2
"""
PIECES = """# nanoserve/pieces.py
class PieceError(ValueError):
    pass


def half(x):
    if x is None:
        raise PieceError("half of nothing: give it a number")
    return x / 2


def outer(act):
    return act()  # the book's
"""


@pytest.fixture
def reader(tmp_path, package, monkeypatch):
    (package / "comparison.py").write_text(JUDGE)
    book = write_book(tmp_path / "book", day04=[PIECES])
    tangle.main([], book)
    reader = Reader(book)
    reader.shell.colors = "nocolor"
    assert reader.run("from nanoserve.comparison import *\nfrom nanoserve.pieces import *") is None
    return reader


@pytest.fixture
def shown(reader, capsys):
    """What a cell shows that fails."""

    def show(source: str) -> str:
        capsys.readouterr()
        assert reader.run(source) is not None
        return capsys.readouterr().out.strip()

    return show


def test_a_verdict_is_its_message(shown):
    assert shown("judge(lambda: 1)") == "SwiGLU is off\nby 2 at position 1"


def test_an_error_of_nanoserves_own_is_its_message(shown):
    assert shown("half(None)") == "half of nothing: give it a number"


def test_a_cell_that_cannot_be_placed_is_its_message(shown):
    said = shown("# nanoserve/pieces.py\ndef quarter(x):\n    return judge(x)")
    assert said.startswith("the notebook knows judge, but nanoserve/pieces.py does not")
    assert "\n" not in said


def test_a_blank_is_its_message(shown):
    said = "Day 4: half is yours to write"
    assert shown(f"raise NotImplementedError({said!r})") == said
    assert "Traceback" in shown("raise NotImplementedError('a method of torch')")


def test_the_place_of_an_error_that_the_judge_took_is_told(shown):
    said = shown("judge(lambda: half('two'))")
    assert said == "SwiGLU differs\nIt was raised in half, at `return x / 2`"


def test_the_place_within_a_kernel_is_told(shown, reader):
    wraps = """
class InterpreterError(Exception): pass

def launch(kernel, x):
    try:
        kernel(x)
    except Exception as error:
        raise InterpreterError() from error
"""
    assert reader.run(f"# nanoserve/pieces.py{wraps}") is None
    said = shown("judge(lambda: launch(half, 'two'))")
    assert said == "SwiGLU differs\nIt was raised in half, at `return x / 2`"


def test_the_place_is_looked_up_in_the_text_of_now(shown, reader):
    assert "at `return x / 2`" in shown("judge(lambda: half('two'))")
    assert reader.run("# nanoserve/pieces.py\ndef half(x):\n\n    return x / 3") is None
    assert "at `return x / 3`" in shown("judge(lambda: half('two'))")


@pytest.mark.parametrize("source", ["half('two')", "assert half(2) == 2", "bare()", "1 / 0"])
def test_every_other_error_keeps_its_traceback(shown, source):
    said = shown(source)
    assert "Traceback" in said and source in said


def test_in_practice_the_books_lines_are_not_shown(shown, reader, package):
    reader.shell.desk = SimpleNamespace(owns=lambda name: name == "half", gives=lambda name: False)
    said = shown("outer(lambda: half('two'))")
    assert "return x / 2" in said and "outer(lambda" in said and "the book's" not in said
    assert "perhaps nothing" in shown("use(None)")
    place = "It was raised in half, at `return x / 2`"
    assert shown("run(lambda: half('two'))").splitlines()[1:] == [place]
    tensors = "run(lambda: half(type('Tensor', (), {'shape': (2, 3), 'dtype': 1})()))"
    assert shown(tensors).splitlines()[1:] == [place, "Shapes there: x [2, 3]"]
    reader.shell.desk.owns = lambda name: False
    assert "return x / 2" not in shown("judge(lambda: half('two'))")
    reader.shell.desk.gives = lambda name: name == "outer"  # it stands on the page
    assert shown("judge(lambda: outer(lambda: half('two')))").endswith(
        "at `return act()  # the book's`"
    )
    assert "nanoserve.pieces" in sys.modules
