"""The notebooks of a build: side by side, each run anew, and none with an error passed over."""

import os
import sys
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

sys.path.insert(0, str(Path(__file__).parents[1] / "book/_ext"))

import ahead

# Each waits for what the other writes: in a row, the first one would wait in vain.
MEET = """
import pathlib, time
pathlib.Path("{mine}").touch()
start = time.monotonic()
while not pathlib.Path("{other}").exists() and time.monotonic() - start < 60:
    time.sleep(0.05)
print(pathlib.Path("{other}").exists())
"""


def write(path: Path, *sources: str) -> Path:
    cells = [new_code_cell(source) for source in sources]
    nbformat.write(new_notebook(cells=[new_markdown_cell("# One"), *cells]), path)
    return path


def test_two_notebooks_run_at_once_and_one_that_fails_is_left_to_the_build(tmp_path):
    one = write(tmp_path / "one.ipynb", MEET.format(mine="a", other="b"))
    two = write(tmp_path / "two.ipynb", MEET.format(mine="b", other="a"))
    bad = write(tmp_path / "bad.ipynb", "print(1)", "1 / 0")
    ahead.run_all([one, bad, two], tmp_path / "cache", timeout=120, jobs=3)
    cache = get_cache(tmp_path / "cache")
    for path in (one, two):
        _, filled = cache.merge_match_into_notebook(nbformat.read(path, as_version=4))
        assert filled.cells[1].outputs[0].text == "True\n"
    assert len(cache.list_cache_records()) == 2


def test_every_build_begins_with_an_empty_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)

    class Settings:
        nb_execution_mode, nb_execution_cache_path = "force", ""

    class App:
        outdir = tmp_path / "html"

    old = tmp_path / ".executed" / "old"
    old.mkdir(parents=True)
    ahead.begin(App, Settings)
    assert Settings.nb_execution_mode == "cache" and not old.exists()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"  # or two at once take longer than in a row
    assert Path(Settings.nb_execution_cache_path) == old.parent


def test_only_days_run_side_by_side(tmp_path, monkeypatch):
    class App:
        class config:
            nb_execution_mode, nb_execution_cache_path, nb_execution_timeout = "cache", "c", 9

    class Env:
        def doc2path(self, name):
            return str(tmp_path / f"{name}{'.md' if name == 'book/day01' else '.ipynb'}")

    seen = []
    monkeypatch.setattr(ahead, "run_all", lambda paths, folder, timeout: seen.extend(paths))
    names = ["book/how-fast", "book/day03", "book/day01", "book/day02", "book/index"]
    ahead.before_pages(App, Env(), names)
    assert [path.stem for path in seen] == ["day02", "day03"]
