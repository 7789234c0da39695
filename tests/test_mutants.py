"""Every planted bug makes its day's comparison cell fail; without one, every cell passes."""

import pytest
from mutants.catalog import catalog
from mutants.run import comparison_cell, run_check

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
