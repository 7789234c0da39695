"""Every planted bug makes its judge fail; without one, every judge passes.

The bugs that an edit since the last commit can touch come first. Where the code is still the one
with which all were seen caught, a tenth is planted, drawn anew for each commit and one for each
judge at least, and that a day's judge passes is left to its notebook; `make bugs` does all. One
judge's alone:
`NANOSERVE_ALL_BUGS=1 pytest tests/test_mutants.py -k "planted and day04"`.
"""

import re
import subprocess

import pytest
from mutants import proven as records
from mutants.catalog import PACKAGE, catalog
from mutants.page import EQUIVALENT, PAGE, heading, line
from mutants.proven import commit, drawn, proven
from mutants.run import judge, judge_source, run_check


def changed() -> set[str]:
    """The files that differ from the last commit; none where there is no git."""
    ask = ["git", "status", "--porcelain", "--no-renames", "--untracked-files=all"]
    try:
        done = subprocess.run(ask, cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return set()
    return {entry[3:] for entry in done.stdout.splitlines()}


def untouched(mutant, files: set[str] = changed()) -> bool:  # noqa: B008, read once
    """Whether the edited files have nothing to do with it."""
    places = (
        f"nanoserve/{mutant.module}.py",
        f"tests/mutants/{mutant.module}.toml",
        f"tests/{mutant.judge}.py",
        f"book/{mutant.judge}.ipynb",
    )
    return files.isdisjoint(places)


MUTANTS = {mutant.name: mutant for mutant in sorted(catalog(), key=untouched)}
BUGS = [name for name, mutant in MUTANTS.items() if not mutant.equivalent]
JUDGES = list(dict.fromkeys(mutant.judge for mutant in MUTANTS.values()))
EQUIVALENTS = [name for name, mutant in MUTANTS.items() if mutant.equivalent]
PLANTED, CLEAN = BUGS, JUDGES
if proven():
    PLANTED = [mutant.name for mutant in drawn([MUTANTS[name] for name in BUGS], commit())]
    CLEAN = [name for name in JUDGES if not name.startswith("day")]
    EQUIVALENTS = EQUIVALENTS[:1]


def test_there_are_enough():
    bugs = [MUTANTS[name] for name in BUGS]
    assert len(bugs) >= 190
    assert sum(not bug.judge.startswith("day") for bug in bugs) >= 25


def test_the_record_is_good_for_this_code_alone(monkeypatch, tmp_path):
    monkeypatch.delenv("NANOSERVE_ALL_BUGS", raising=False)
    monkeypatch.setattr(records, "RECORD", tmp_path / "proven.sha256")
    assert not proven()  # there is none
    records.record()
    assert proven()
    monkeypatch.setenv("NANOSERVE_ALL_BUGS", "1")
    assert not proven()
    monkeypatch.delenv("NANOSERVE_ALL_BUGS")
    monkeypatch.setattr(records, "PACKAGE", tmp_path / "nanoserve")  # without a single file
    (tmp_path / "requirements.txt").touch()
    monkeypatch.setattr(records, "HERE", tmp_path)
    assert not proven()


def test_a_draw_has_a_tenth_and_every_judge_and_in_time_all():
    bugs = [MUTANTS[name] for name in BUGS]
    draws = [drawn(bugs, f"commit {n}") for n in range(200)]
    assert draws[0] == drawn(bugs, "commit 0") != draws[1]
    judges = {bug.judge for bug in bugs}
    for draw in draws:
        assert {bug.judge for bug in draw} == judges
        assert 0 <= len(draw) - len(bugs) / 10 < len(judges)
    assert {bug.name for draw in draws for bug in draw} == set(BUGS)


@pytest.mark.parametrize("name", CLEAN)
def test_judges_pass_what_is_right(name):
    outcome = run_check(judge_source(name), None)
    assert outcome.verdict == "passed", outcome.message


@pytest.mark.parametrize("name", PLANTED, ids=lambda name: f"{MUTANTS[name].judge}-{name}")
def test_planted_bug_is_caught(name):
    outcome = judge(MUTANTS[name])
    bug = MUTANTS[name].bug
    assert outcome.verdict == "caught", f"{bug}: {outcome.verdict}\n{outcome.message}"


@pytest.mark.parametrize("name", EQUIVALENTS)
def test_an_equivalent_is_one(name):
    outcome = judge(MUTANTS[name])
    assert outcome.verdict == "passed", f"it is a bug after all: {outcome.message}"


@pytest.mark.parametrize("name", MUTANTS)
def test_the_page_lists_it_as_it_is(name):
    mutant = MUTANTS[name]
    where = EQUIVALENT if mutant.equivalent else heading(mutant)
    section = PAGE.read_text("utf-8").split(f"\n## {where}\n")[1]
    assert line(mutant) in section.split("\n## ")[0]


def test_the_page_lists_nothing_else():
    page = PAGE.read_text("utf-8")
    assert set(re.findall(r"^[|-] `([\w-]+)`:", page, re.MULTILINE)) == set(MUTANTS)
