"""A reader runs module cells: what the package then is, in this kernel and on disk."""

import inspect
import os
import sys

import pytest
import tangle
from readers import Reader, write_book

SCALE = "# nanoserve/pieces.py\ndef scale(x):\n    return 2 * x"
NORM = "# nanoserve/pieces.py\nimport math\n\n\nclass Norm:\n    size = math.pi  # round"
USE = "# nanoserve/whole.py\nfrom nanoserve.pieces import scale\n\n\ndef use(x, by=scale):\n"
USE += "    return scale(x), by(x)"


@pytest.fixture
def book(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "nanoserve"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setenv("NANOSERVE_PACKAGE", str(tmp_path / "nanoserve"))
    (tmp_path / "nanoserve").mkdir()
    (tmp_path / "nanoserve" / "__init__.py").touch()
    yield write_book(tmp_path / "book", day04=[SCALE, NORM], day05=[USE])
    for name in [name for name in sys.modules if name.split(".")[0] == "nanoserve"]:
        del sys.modules[name]


@pytest.fixture
def reader(book):
    tangle.main([], book)
    return Reader(book)


def pieces() -> str:
    return (tangle.package() / "pieces.py").read_text("utf-8")


def test_rerun_changes_nothing(reader, book):
    before = (tangle.package() / "pieces.py").stat().st_mtime_ns
    for source in (SCALE, NORM, USE, SCALE, NORM):
        assert reader.run(source) is None
    assert (tangle.package() / "pieces.py").stat().st_mtime_ns == before
    assert tangle.main(["--check"], book) == 0


def test_order_of_running_does_not_matter(reader, book):
    (tangle.package() / "pieces.py").unlink()
    for source in (NORM, SCALE, USE):
        assert reader.run(source) is None
    assert tangle.main(["--check"], book) == 0


def test_edit_takes_effect_at_once_and_keeps_its_place(reader):
    assert reader.run("from nanoserve.pieces import scale as first") is None
    assert reader.run(SCALE.replace("2 *", "3 *")) is None
    assert reader.run("from nanoserve.pieces import scale as second") is None
    assert (reader["first"](1), reader["second"](1)) == (2, 3)
    assert reader["scale"] is reader["second"] is sys.modules["nanoserve.pieces"].scale
    assert reader["scale"].__module__ == "nanoserve.pieces"
    assert reader["scale"].__globals__ is vars(sys.modules["nanoserve.pieces"])
    assert inspect.getsource(reader["scale"]) == "def scale(x):\n    return 3 * x\n"
    assert pieces().index("3 * x") < pieces().index("class Norm")


def test_new_helper_stands_beside_its_neighbour(reader):
    helper = "def helper(x):\n    return x\n\n\n"
    assert reader.run(SCALE.replace("def", helper + "def").replace("2 *", "helper(x) *")) is None
    assert pieces().index("def helper") < pieces().index("def scale") < pieces().index("class Norm")


def test_only_the_cell_is_run_again(reader):
    assert reader.run(NORM) is None
    kept = reader["Norm"]
    assert reader.run(SCALE) is None
    assert sys.modules["nanoserve.pieces"].Norm is kept


def test_dependents_get_the_new_object(reader):
    assert reader.run("from nanoserve.whole import use\nold = use(1)") is None
    assert reader.run(SCALE.replace("2 *", "3 *")) is None
    assert reader.run("new = use(1)") is None
    assert reader["old"] == (2, 2)
    assert reader["new"] == (3, 3)  # by the name, and by the default of an argument


def test_deleted_module_is_rebuilt(reader, book):
    (tangle.package() / "pieces.py").unlink()
    assert reader.run(SCALE) is None
    assert "def scale" in pieces()
    assert "Norm" not in pieces()
    assert reader.run(NORM) is None
    assert reader.run("from nanoserve.pieces import Norm, scale") is None
    assert tangle.main(["--check"], book) == 0


def test_cell_mends_a_module_that_cannot_be_imported(reader):
    broken = pieces().replace("    return 2 * x", "    return 2 * x\n\n\nscale.size = missing")
    (tangle.package() / "pieces.py").write_text(broken.replace("math.pi", "1 / 0"), "utf-8")
    assert isinstance(reader.run(NORM), SyntaxError | ValueError)  # not of a module's form
    (tangle.package() / "pieces.py").write_text(pieces().split("scale.size")[0] + "A = missing\n")
    assert isinstance(reader.run("import nanoserve.pieces"), NameError)
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
    write_book(book, day05=[USE, SCALE])
    assert "scale is already defined in day04.ipynb" in str(reader.run(SCALE))
    assert pieces() == before


def test_saved_notebook_may_be_broken_meanwhile(reader, book):
    write_book(book, day04=["# nanoserve/pieces.py\ndef scale(:", NORM])
    assert reader.run(SCALE.replace("2 *", "3 *")) is None
    assert "3 * x" in pieces()


def test_comments_survive_a_rerun(reader, book):
    scale = SCALE + "\n\n\n# After scale."
    write_book(book, day04=[scale, "# nanoserve/pieces.py\n# Before.\n" + NORM.split("\n\n\n")[1]])
    norm = NORM.replace("class", "# Before.\nclass")
    write_book(book, day04=[scale, norm])
    tangle.main([], book)
    before = pieces()
    assert "# After scale.\n\n\n# Before.\nclass" in before
    for source in (norm, scale, norm):
        assert reader.run(source) is None
        assert pieces() == before


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
