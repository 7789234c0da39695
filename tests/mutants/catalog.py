"""The planted bugs, read from the TOML files beside this one, each named like its module."""

import sys
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
PACKAGE = HERE.parent.parent / "nanoserve"


@dataclass(frozen=True)
class Mutant:
    """An edit of one module that a person could have made, and the judge that must notice.

    The `judge` is the comparison cell of a day, "day04", or a file of tests, "test_judge". Where
    an edit is `equivalent`, that is why no valid use shows it, and the judge must not notice.
    """

    name: str
    module: str
    judge: str
    bug: str
    looks: str
    edits: tuple[tuple[str, str], ...]
    equivalent: str = ""
    report: str = ""  # where somebody met it: the address of a public report

    def cell(self) -> str:
        """The first cell of its row on the page of bugs."""
        met = f" ([met here]({self.report}))" if self.report else ""
        return f"`{self.name}`: {self.bug}{met}"

    def source(self) -> str:
        """The module with the bug. ValueError where the edit no longer applies."""
        text = (PACKAGE / f"{self.module}.py").read_text("utf-8")
        for old, new in self.edits:
            if text.count(old) != 1:
                raise ValueError(
                    f"{self.name}: {old!r} stands {text.count(old)} times in {self.module}.py, "
                    "once is wanted: write the edit anew"
                )
            text = text.replace(old, new)
        compile(text, f"{self.module}.py", "exec")
        return text


def catalog() -> list[Mutant]:
    """Every planted bug: those of nanoserve/checks/common.py are in checks/common.toml."""
    found = []
    for path in sorted(HERE.rglob("*.toml")):
        module = path.relative_to(HERE).with_suffix("").as_posix()
        for name, entry in tomllib.loads(path.read_text("utf-8")).items():
            old, new = entry["old"], entry.get("new")
            edits = [(old, new)] if isinstance(old, str) else old
            found.append(
                Mutant(
                    name=name,
                    module=module,
                    judge=entry.get("day") or entry["test"],
                    bug=entry["bug"],
                    looks=entry["looks"],
                    edits=tuple(map(tuple, edits)),
                    equivalent=entry.get("equivalent", ""),
                    report=entry.get("report", ""),
                )
            )
    return sorted(found, key=lambda mutant: (mutant.judge, mutant.module))
