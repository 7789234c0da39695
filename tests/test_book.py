"""What nbval cannot see: cells that never ran, modules that differ, words that must not be."""

import ast
import itertools
import json
import re
import subprocess
import symtable
import sys
from pathlib import Path

import nbformat
import pytest
import refresh
import torch
import yaml
from packaging.requirements import Requirement
from tracked import tracked

from nanoserve.comparison import Scoreboard

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
KINDS = ["*.md", "*.ipynb", "*.py", "*.toml", "*.yml", "*.svg", "*.cfg", "Makefile", ".ci/run"]
TRACKED = tracked(*KINDS)
FORBIDDEN = {
    "an em dash": chr(8212) + r"|\\u" + "2014|&m" + "dash;",
    "a path of one machine": r"(?<![\w.])/(home|root|Users|work|builds)/\w|/ipykernel_\d",
    "a token": r"\b(hf_|gh[pousr]_|github_pat_|glpat-|AKIA|sk-)\w{16,}|PRIVATE" + " KEY",
}
PINNED_EXTRAS = ("download", "reference", "text", "server", "cpu")
notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[dict]:
    return [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]


def test_the_days_are_there_one_after_another():
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))["parts"]
    listed = {p["caption"]: [Path(c["file"]).name for c in p["chapters"]] for p in parts}
    weeks = {name: days for name, days in listed.items() if name.startswith("Week ")}
    assert [name.partition(":")[0] for name in weeks] == [
        f"Week {n + 1}" for n in range(len(weeks))
    ]
    pages = [page for week in weeks.values() for page in week]
    days = [page for page in pages if not page.startswith("week")]  # a page may close a week
    assert days == [f"day{n + 1:02}" for n in range(len(days))] and len(days) >= 7
    files = {path.stem for path in (ROOT / "book").glob("day*") if path.suffix in (".md", ".ipynb")}
    assert files == set(days), "a day and its line in _toc.yml come together"


def test_modules_are_what_the_notebooks_say():
    command = [sys.executable, "book/tangle.py", "--check"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_modules_are_laid_out():
    for command in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, "nanoserve"], cwd=ROOT, check=True)


@notebook
def test_stored_outputs_are_one_clean_run(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    cells = code_cells(path)
    assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert "execution" not in cell["metadata"], "timings are stored"
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"
        streams = [o["output_type"] == "stream" for o in cell["outputs"]]
        assert (True, True) not in itertools.pairwise(streams), "cut where the clock cut it"


@notebook
def test_metadata_is_the_same_everywhere(path):
    metadata = json.loads(path.read_text("utf-8"))["metadata"]
    assert {name: metadata.get(name) for name in refresh.METADATA} == refresh.METADATA


@notebook
def test_lines_fit_the_page(path):
    long = [line for c in code_cells(path) for line in "".join(c["source"]).split("\n")]
    assert [line for line in long if len(line) > 75] == []


@notebook
def test_pictures_have_alternative_text(path):
    for cell in code_cells(path):
        if any(kind.startswith("image/") for o in cell["outputs"] for kind in o.get("data", {})):
            image = cell["metadata"].get("mystnb", {}).get("image", {})
            assert image.get("alt"), "".join(cell["source"])[:80]


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem.startswith("day")], ids=str)
def test_the_last_code_cell_compares(path):
    cells = code_cells(path)
    assert [c for c in cells if "comparison" in c["metadata"].get("tags", [])] == cells[-1:]


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem.startswith("day")], ids=str)
def test_the_comparison_rebinds_no_name_of_its_page(path):
    """Who runs it, and then a cell above once more, must not meet another `path` there."""
    *cells, comparison = ("".join(c["source"]) for c in code_cells(path))
    page = set().union(*(bound(source) for source in cells if "%" not in source.split("\n")[-1]))
    assert bound(comparison) & page == set()


def bound(source: str) -> set[str]:
    """The names that a cell gives a value to; imports are not among them."""
    names = symtable.symtable(source, "cell", "exec").get_symbols()
    return {s.get_name() for s in names if s.is_assigned() and not s.is_imported()}


@pytest.mark.parametrize("name", TRACKED)
def test_no_word_that_must_not_be(name):
    text = (ROOT / name).read_text("utf-8")
    for what, pattern in FORBIDDEN.items():
        found = re.search(pattern, text)
        assert not found, f"{what}: {text[max(0, found.start() - 40) : found.end() + 40]!r}"


@pytest.mark.parametrize("name", [name for name in TRACKED if name.endswith(".py")])
def test_a_script_says_in_its_first_line_what_it_is(name):
    words = ast.get_docstring(ast.parse((ROOT / name).read_text("utf-8"))) or ""
    assert len(words.split("\n")[0].split()) > 3


def test_every_folder_is_explained():
    told = (ROOT / "book/README.md").read_text("utf-8")
    folders = {path.parent for path in (ROOT / "book").glob("*/*") if path.is_file()}
    shown = [path.name for path in folders if path.name[:2] != "__" and path.name[0] != "."]
    assert [name for name in shown if f"`{name}/`" not in told] == []
    for name in ("tests", "weights", "book/_static"):
        assert (ROOT / name / "README.md").is_file()


def test_the_package_stands_on_torch_and_safetensors_alone():
    barred = ("transformers", "tokenizers", "huggingface_hub", "gguf", "filelock", "tqdm")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({barred}));"
        "import nanoserve.model, nanoserve.cli, nanoserve.checkpoints.download"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_pins_satisfy_the_ranges():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {pin.name.replace("_", "-").lower(): pin.specifier for pin in pins}
    extras = project["optional-dependencies"]
    assert [name for name in extras if name not in PINNED_EXTRAS] == ["gpu"]
    ranges = [*project["dependencies"], *itertools.chain(*(extras[n] for n in PINNED_EXTRAS))]
    for wanted in map(Requirement, ranges):
        (pin,) = versions[wanted.name.replace("_", "-").lower()]
        assert wanted.specifier.contains(pin.version), wanted
    for specifier in versions.values():
        assert [s.operator for s in specifier] == ["=="]


def test_every_term_of_the_glossary_is_linked_from_a_day():
    glossary = (ROOT / "book" / "glossary.md").read_text("utf-8")
    terms = re.findall(r"^## (.*)$", glossary, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", term).lower().replace(" ", "-") for term in terms}
    days = "".join(path.read_text("utf-8") for path in sorted((ROOT / "book").glob("day*")))
    assert set(re.findall(r"\(glossary\.md#([\w-]+)\)", days)) == anchors


@pytest.mark.parametrize(
    "tolerances, how",
    [({}, "within 1e-5"), ({"rtol": 0}, "within 1e-5"), ({"rtol": 0, "atol": 0}, "to the bit")],
)
def test_a_scoreboard_claims_no_more_than_its_tolerances(tolerances, how):
    board = Scoreboard("Day 3, the loader")
    board.compare(None, "weights", "one", torch.ones(2), torch.ones(2), **tolerances)
    assert board.verdict().endswith(f"1 tensors match HuggingFace {how}")


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem.startswith("day")], ids=str)
def test_a_folded_check_begins_with_what_it_is(path):
    """JupyterLab shows a folded cell's first line: under an exercise it would be the answer."""
    for cell in nbformat.read(path, as_version=4).cells:
        tags = cell.metadata.get("tags", [])
        if "remove-cell" in tags and "assert" in cell.source and "%load_ext" not in cell.source:
            assert cell.source.startswith("#"), cell.id
