"""What nbval cannot see: cells that never ran, modules that differ, words that must not be."""

import importlib.metadata
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
TRACKED = subprocess.run(
    ["git", "ls-files", "*.md", "*.ipynb", "*.py", "*.toml", "*.yml", "*.svg", "Makefile"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.split()
notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[dict]:
    return [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]


def test_the_week_is_there():
    assert [p.stem for p in NOTEBOOKS if p.stem.startswith("day")] == [
        f"day{day:02}" for day in range(2, 8)
    ]
    assert (ROOT / "book" / "day01.md").exists()


def test_modules_are_what_the_notebooks_say():
    command = [sys.executable, "book/tangle.py", "--check"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_modules_are_laid_out():
    for command in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, "nanoserve"], cwd=ROOT, check=True)


@notebook
def test_stored_outputs_are_one_clean_run(path):
    cells = code_cells(path)
    assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert "execution" not in cell["metadata"], "timings are stored"
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"


@notebook
def test_lines_fit_the_page(path):
    long = [line for c in code_cells(path) for line in "".join(c["source"]).split("\n")]
    assert [line for line in long if len(line) > 75] == []


@notebook
def test_pictures_have_alternative_text(path):
    for cell in code_cells(path):
        pictures = [o for o in cell["outputs"] if "image/png" in o.get("data", {})]
        if pictures:
            assert cell["metadata"]["mystnb"]["image"]["alt"], "".join(cell["source"])[:80]


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem.startswith("day")], ids=str)
def test_the_last_code_cell_compares(path):
    cells = code_cells(path)
    assert [c for c in cells if "comparison" in c["metadata"].get("tags", [])] == cells[-1:]


@pytest.mark.parametrize("name", TRACKED)
def test_no_word_that_must_not_be(name):
    text = (ROOT / name).read_text("utf-8")
    assert chr(0x2014) not in text and "\\u" + "2014" not in text, "an em dash"
    assert not re.search(r"/(home|root|Users)/[A-Za-z]", text), "a path of one machine"
    assert not re.search(r"hf_[A-Za-z0-9]{20,}", text), "a token"


def test_pins_satisfy_the_ranges():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {pin.name.replace("_", "-").lower(): pin.specifier for pin in pins}
    extras = project["optional-dependencies"].values()
    ranges = [*project["dependencies"], *itertools.chain(*extras)]
    for wanted in map(Requirement, ranges):
        pinned = versions.get(wanted.name.replace("_", "-").lower())
        installed = importlib.metadata.version(wanted.name)
        version = next(iter(pinned)).version if pinned else installed
        assert wanted.specifier.contains(version), wanted
    for specifier in versions.values():
        assert [s.operator for s in specifier] == ["=="]
