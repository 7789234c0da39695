"""The first cell of a notebook that is opened alone, as on Colab: it fetches what it stands on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from tracked import is_repository

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))


def first_cell(notebook: Path) -> str:
    cells = nbformat.read(notebook, as_version=4).cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


def address() -> str:
    return yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["repository"]["url"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_all_begin_alike_and_know_the_address(notebook):
    assert first_cell(notebook) == first_cell(NOTEBOOKS[0])
    assert f" {address()} nanoserve\n" in first_cell(notebook)


@pytest.mark.skipif(shutil.which("git") is None, reason="the workflow runs git")
@pytest.mark.skipif(sys.platform != "linux", reason="the workflow runs on Linux, with its sed")
def test_publishing_a_fork_fills_in_its_address(tmp_path):
    workflow = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text("utf-8"))
    steps = workflow["jobs"]["publish"]["steps"]
    (fill,) = (step["run"] for step in steps if step.get("name") == "Fill in the address")
    (tmp_path / "book").mkdir()
    for file in (ROOT / "_config.yml", *NOTEBOOKS):
        shutil.copy(file, tmp_path / file.relative_to(ROOT))
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    fork, site = "https://github.com/someone/book", "https://someone.github.io/book/"
    environment = {**os.environ, "REPOSITORY": fork, "SITE": site}
    subprocess.run(["bash", "-ec", fill], cwd=tmp_path, env=environment, check=True)
    config = yaml.safe_load((tmp_path / "_config.yml").read_text("utf-8"))
    assert config["repository"]["url"] == fork
    assert config["html"]["baseurl"] == config["sphinx"]["config"]["ogp_site_url"] == site
    for notebook in NOTEBOOKS:
        filled = first_cell(tmp_path / "book" / notebook.name)
        assert f" {fork} nanoserve\n" in filled and address() not in filled


@pytest.mark.skipif(not is_repository(), reason="there is no repository here to be cloned")
def test_an_empty_machine_is_filled(tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("pip", "python"):  # what they were asked for, where
        (tools / tool).write_text(f'#!/bin/sh\necho "{tool} $* in ${{PWD##*/}}" >> "$LOG"\n')
        (tools / tool).chmod(0o755)
    log, alone = tmp_path / "log", tmp_path / "alone"
    alone.mkdir()
    environment = {
        **os.environ,
        "COLAB_RELEASE_TAG": "release",
        "LOG": str(log),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{ROOT}.insteadOf",
        "GIT_CONFIG_VALUE_0": address(),
    }
    code = (
        "from IPython.core.interactiveshell import InteractiveShell as Shell\n"
        f"Shell.instance().run_cell({first_cell(NOTEBOOKS[0])!r}).raise_error()\n"
        "import nanoserve; print(nanoserve.__file__)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=alone,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == str(alone / "nanoserve" / "nanoserve" / "__init__.py")
    asked = log.read_text().splitlines()
    assert asked == [
        "pip install -q -e ..[download,reference] ruff in book",
        "python -m nanoserve download smollm2-135m in book",
        "python -m nanoserve download llama-3.2-1b-twin in book",
    ]
