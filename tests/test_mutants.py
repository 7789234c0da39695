"""Every planted bug makes its day's comparison cell fail; without one, every cell passes."""

import re

import pytest
from mutants.catalog import catalog
from mutants.run import BOOK, comparison_cell, run_check

MUTANTS = {mutant.name: mutant for mutant in catalog()}


def test_there_are_enough():
    assert len(MUTANTS) >= 50


@pytest.mark.parametrize("day", sorted({mutant.day for mutant in MUTANTS.values()}))
def test_unmutated_cells_pass(day):
    outcome = run_check(comparison_cell(day), None)
    assert outcome.verdict == "passed", outcome.message


@pytest.mark.parametrize("name", MUTANTS)
def test_planted_bug_is_caught(name):
    mutant = MUTANTS[name]
    outcome = run_check(comparison_cell(mutant.day), mutant)
    assert outcome.verdict == "caught", f"{mutant.bug}: {outcome.verdict}\n{outcome.message}"


@pytest.mark.parametrize("name", MUTANTS)
def test_the_page_lists_it_as_it_is(name):
    mutant = MUTANTS[name]
    page = (BOOK / "bugs.md").read_text("utf-8")
    section = page.split(f"\n## Day {int(mutant.day[3:])}, in `{mutant.module}.py`\n")[1]
    row = f"| `{name}`: {mutant.bug} | {mutant.looks} |"
    assert row in section.split("\n## ")[0]


def test_the_page_lists_nothing_else():
    page = (BOOK / "bugs.md").read_text("utf-8")
    assert set(re.findall(r"^\| `([\w-]+)`:", page, re.MULTILINE)) == set(MUTANTS)
