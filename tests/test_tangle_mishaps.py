"""A reader's cell goes wrong, or the world around it: what is on disk stays as it was."""

import inspect
import os
import sys

import pytest
import tangle
from readers import Reader, write_book

SCALE = "# nanoserve/pieces.py\ndef scale(x):\n    return 2 * x"
NORM = "# nanoserve/pieces.py\nimport math\n\n\nclass Norm:\n    size = math.pi  # round"


@pytest.fixture
def book(tmp_path, package):
    return write_book(tmp_path / "book", day04=[SCALE, NORM])


@pytest.fixture
def reader(book):
    tangle.main([], book)
    return Reader(book)


def pieces() -> str:
    return (tangle.package() / "pieces.py").read_text("utf-8")


def test_file_that_is_no_module_of_the_book_is_named(reader):
    (tangle.package() / "pieces.py").write_text(pieces() + "print(1)\n", "utf-8")
    before = pieces()
    assert "nanoserve/pieces.py, line 12: only imports" in str(reader.run(NORM))
    assert pieces() == before


def test_cell_mends_a_module_that_cannot_be_imported(reader):
    (tangle.package() / "pieces.py").write_text(pieces() + "A = missing\n", "utf-8")
    assert type(reader.run("import nanoserve.pieces")) is NameError
    assert reader.run("# nanoserve/pieces.py\nA = 1") is None
    assert reader.run("import nanoserve.pieces") is None


@pytest.mark.parametrize("bad", ["def scale(x:\n    return 3", "def scale(x)\n    return 3"])
def test_syntax_error_leaves_the_file(reader, bad):
    before = pieces()
    assert type(reader.run("# nanoserve/pieces.py\n" + bad)) is SyntaxError
    assert pieces() == before


def test_cell_that_fails_leaves_the_file(reader):
    before = pieces()
    assert type(reader.run(SCALE + "\n\n\nSIZE = 1 / 0")) is ZeroDivisionError
    assert pieces() == before


def test_cell_that_cannot_be_placed_fails_before_it_runs(reader):
    before = pieces()
    error = reader.run(SCALE.replace("2 *", "3 *") + "\n\n\nran = 1\nprint(ran)")
    assert type(error) is SyntaxError
    assert "this cell, line 7: only imports, definitions" in str(error)
    assert "ran" not in reader.shell.user_ns
    assert pieces() == before


def test_what_only_the_notebook_knows_is_refused(reader):
    before = pieces()
    assert reader.run("import os") is None
    error = reader.run("# nanoserve/pieces.py\ndef folder():\n    return os.sep")
    assert "the notebook knows os, but nanoserve/pieces.py does not" in str(error)
    assert pieces() == before
    assert not hasattr(sys.modules.get("nanoserve.pieces"), "folder")


def test_name_of_another_chapter_is_refused(reader, book, monkeypatch):
    before = pieces()
    monkeypatch.setenv("JPY_SESSION_NAME", "somewhere/day05.ipynb")
    error = reader.run(SCALE.replace("2 *", "3 *"))
    assert "scale is already defined in day04.ipynb" in str(error)
    monkeypatch.delenv("JPY_SESSION_NAME")
    write_book(book, day05=[SCALE])
    assert "scale is already defined in day04.ipynb" in str(reader.run(SCALE))
    assert pieces() == before


def test_saved_notebook_may_be_broken_meanwhile(reader, book):
    write_book(book, day04=["# nanoserve/pieces.py\ndef scale(:", NORM])
    assert reader.run(SCALE.replace("2 *", "3 *")) is None
    assert "3 * x" in pieces()


def test_read_only_checkout(reader, monkeypatch):
    before = pieces()

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    assert reader.run(SCALE.replace("2 *", "3 *")) is None
    assert reader.run("from nanoserve.pieces import scale\nthree = scale(1)") is None
    assert reader["three"] == 3
    assert inspect.getsource(reader["scale"]) == "def scale(x):\n    return 3 * x\n"
    assert pieces() == before
    assert not list(tangle.package().glob("*.tmp"))


def test_cell_that_fails_in_its_module_changes_nothing(reader):
    before = pieces()
    assert reader.run("scale = 5") is None
    # In the module, scale is a function.
    error = reader.run("# nanoserve/pieces.py\nFIVE = 5\nTEN = 2 * scale")
    assert type(error) is TypeError
    assert not hasattr(sys.modules["nanoserve.pieces"], "FIVE")
    assert pieces() == before
    del sys.modules["nanoserve.pieces"]
    (tangle.package() / "pieces.py").unlink()
    assert type(reader.run("# nanoserve/pieces.py\nTEN = 2 * scale")) is NameError
    assert "nanoserve.pieces" not in sys.modules
    assert not (tangle.package() / "pieces.py").exists()


def test_folder_that_is_no_package_is_refused(book):
    (tangle.package() / "__init__.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no __init__.py"):
        Reader(book)
