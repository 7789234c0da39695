"""Cells of modules in packages, such as `# nanoserve/engine/blocks.py`: placed, live, refused."""

import importlib
import sys

import pytest
import tangle
from cells import CellError
from readers import Reader, write_book

POOL = "# nanoserve/engine/pool.py\nSIZE = 16"
BLOCKS = """\
# nanoserve/engine/blocks.py
from nanoserve.engine.pool import SIZE


def blocks(tokens, size=SIZE):
    return -(-tokens // size)
"""


@pytest.fixture
def engine(package):
    (package / "engine").mkdir()
    (package / "engine" / "__init__.py").touch()
    return package / "engine"


@pytest.fixture
def book(tmp_path, package):
    return write_book(tmp_path / "book", day14=[POOL, BLOCKS])


def test_a_cell_goes_into_its_package(book, engine, capsys):
    assert tangle.main([], book) == 0
    text = (engine / "blocks.py").read_text("utf-8")
    assert "from nanoserve.engine.pool import SIZE" in text and "Built in the book: day14" in text
    assert "wrote nanoserve/engine/blocks.py" in capsys.readouterr().out
    assert tangle.main(["--check"], book) == 0
    (engine / "pool.py").write_text("SIZE = 8\n", "utf-8")
    assert tangle.main(["--check"], book) == 1
    assert "nanoserve/engine/pool.py on disk" in capsys.readouterr().out


def test_a_module_that_is_no_longer_built_is_seen_in_a_package_too(book, engine, capsys):
    tangle.main([], book)
    write_book(book, day14=[POOL])
    assert tangle.main(["--check"], book) == 1
    assert "nanoserve/engine/blocks.py is no longer built" in capsys.readouterr().out


def test_two_modules_of_one_name_in_two_packages(book, engine, package):
    write_book(book, day15=["# nanoserve/blocks.py\nblocks = 1"])
    tangle.main([], book)
    assert (package / "blocks.py").read_text("utf-8").endswith("blocks = 1\n")
    assert "def blocks" in (engine / "blocks.py").read_text("utf-8")


def test_a_folder_that_is_no_package_is_refused_before_anything_is_written(book, package):
    write_book(book, day04=["# nanoserve/pieces.py\nA = 1"])
    with pytest.raises(CellError, match=r"nanoserve/engine is no package: give it an __init__"):
        tangle.main([], book)
    assert [path.name for path in package.iterdir()] == ["__init__.py"]
    assert "nanoserve/engine is no package" in str(Reader(book).run(POOL))


def test_a_cell_of_a_package_takes_effect_at_once(book, engine):
    reader = Reader(book)
    assert reader.run(POOL) is None and reader.run(BLOCKS) is None
    assert reader["blocks"](33) == 3
    assert reader.run("import nanoserve.engine.blocks as b; again = b.blocks(33)") is None
    assert reader["again"] == 3 and sys.modules["nanoserve.engine"].pool.SIZE == 16
    assert reader.run(POOL.replace("16", "8")) is None
    assert sys.modules["nanoserve.engine"].blocks.SIZE == 8  # handed to who uses it
    assert reader.run(BLOCKS.replace("-(-tokens // size)", "'edited'")) is None
    assert reader["blocks"](33) == "edited"
    assert importlib.import_module("nanoserve.engine.blocks").blocks(33) == "edited"
    assert '"edited"' in (engine / "blocks.py").read_text("utf-8")
