"""A package that is missing is named with the extra of pyproject.toml that brings it."""

import argparse
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from nanoserve import cli

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
# Nothing of ours asks for the first two. The others come with fastapi.
UNASKED, BROUGHT = ("uvloop", "numba"), {"server": {"starlette", "pydantic"}}


def brought(extra: str) -> set[str]:
    """The packages of an extra, as they are imported."""
    names = {Requirement(line).name.replace("-", "_") for line in EXTRAS[extra]}
    return names.difference(UNASKED) | BROUGHT.get(extra, set())


@pytest.mark.parametrize("package", sorted(set().union(*map(brought, EXTRAS))))
def test_the_extra_that_is_named_brings_it(package, monkeypatch, capsys):
    def add(commands) -> None:
        commands.add_parser("try").set_defaults(run=run)

    def run(args) -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(cli, "COMMANDS", (argparse.Namespace(add=add),))
    assert cli.main(["try"]) == 1
    extra = capsys.readouterr().err.rpartition("nanoserve[")[2].partition("]")[0]
    assert package in brought(extra)
