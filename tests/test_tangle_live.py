"""A reader runs module cells: what the package then is, in this kernel and on disk."""

import inspect
import sys

import pytest
import tangle
from readers import Reader, write_book

SCALE = "# nanoserve/pieces.py\ndef scale(x):\n    return 2 * x"
NORM = "# nanoserve/pieces.py\nimport math\n\n\nclass Norm:\n    size = math.pi  # round"
USE = "# nanoserve/whole.py\nfrom nanoserve.pieces import scale\n\n\ndef use(x, by=scale):\n"
USE += "    return scale(x), by(x)"


@pytest.fixture
def book(tmp_path, package):
    return write_book(tmp_path / "book", day04=[SCALE, NORM], day05=[USE])


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


def test_a_decorator_finds_the_new_source(reader):
    noted = (
        "import inspect\n\n\ndef noted(f):\n    f.said = inspect.getsource(f)\n    return f\n\n\n"
    )
    source = SCALE.replace("def", noted + "@noted\ndef")
    for number in "34":
        assert reader.run(source.replace("2 *", f"{number} *")) is None
        assert f"return {number} * x" in reader["scale"].said


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


def test_import_that_the_cell_changes_is_changed(reader):
    assert reader.run(NORM.replace("import math", "import cmath as math")) is None
    assert "import cmath as math\n" in pieces()
    assert "import math\n" not in pieces()
    assert (
        reader.run("# nanoserve/pieces.py\nfrom operator import neg as scale\nA = scale(1)") is None
    )
    assert "def scale" not in pieces()
    assert sys.modules["nanoserve.pieces"].A == -1


def test_what_the_module_says_of_the_book_stays(reader, book):
    before = pieces()
    (book / "day04.ipynb").unlink()
    assert reader.run(SCALE) is None
    assert pieces() == before


def test_a_cell_says_in_a_line_what_it_changed_to_somebody_who_sits_there(
    reader, capsys, monkeypatch
):
    new = SCALE.replace("2 *", "3 *") + "\n\n\nSIZE = 1"
    assert reader.run(SCALE.replace("2 *", "5 *")) is None
    assert capsys.readouterr().out == ""  # no stored output has it
    monkeypatch.setenv("JPY_SESSION_NAME", "book/day04.ipynb")
    assert reader.run(new) is None
    assert capsys.readouterr().out == "nanoserve/pieces.py: scale, SIZE changed\n"
    assert reader.run(new) is None
    assert capsys.readouterr().out == ""
