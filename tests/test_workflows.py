"""What runs on GitHub and Binder names files that are there, and does what it says."""

import re
import subprocess
import sys

import pytest
import yaml
from tracked import ROOT, tracked

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCRIPTS = (".binder/postBuild", ".ci/run")
FILES = [*sorted((ROOT / ".github/workflows").iterdir()), *(ROOT / name for name in SCRIPTS)]
NAMED = re.compile(r"(?<![\w./-])(?:\.ci|book|nanoserve|tests)/[\w./*-]*\w|\brequirements\.txt")


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_the_paths_are_there(file):
    known = [*tracked(), *(f"{folder}/" for folder in ("book", "nanoserve", "tests"))]
    for name in NAMED.findall(file.read_text("utf-8")):
        found = list(ROOT.glob(name)) or [n for n in known if n.startswith(name)]
        assert found, name


@pytest.mark.parametrize("file", SCRIPTS)
def test_the_scripts_are_sound(file):
    subprocess.run(["bash", "-n", file], cwd=ROOT, check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="the workflow runs on Linux, with its sed")
def test_the_oldest_versions_are_what_pyproject_allows(tmp_path):
    """Every lower bound that is installed there becomes a pin; the GPU's are not installed."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/drift.yml").read_text("utf-8"))["jobs"]
    steps = [step["run"] for step in jobs["oldest"]["steps"] if "run" in step]
    (pin,) = (step for step in steps if step.startswith("sed "))
    (install,) = (step for step in steps if step.startswith("pip install"))
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    subprocess.run(["bash", "-ec", pin], cwd=tmp_path, check=True)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    installed = re.search(r"\[([\w,]+)\]", install)[1].split(",")
    assert {*installed, "gpu"} == extras.keys()
    wanted = project["dependencies"] + [one for extra in installed for one in extras[extra]]
    assert all("==" in one and ">=" not in one for one in wanted)
    assert all(">=" in one for one in extras["gpu"])
