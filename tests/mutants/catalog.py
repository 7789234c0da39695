"""The planted bugs, read from the TOML files beside this one."""

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
    """An edit of one module that a person could have made, and the day that must notice."""

    name: str
    module: str
    day: str
    bug: str
    looks: str
    edits: tuple[tuple[str, str], ...]

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
    """Every planted bug, in the book's order."""
    found = []
    for module in ("config", "loader", "layers", "model", "reference", "generate", "cache"):
        for name, entry in tomllib.loads((HERE / f"{module}.toml").read_text("utf-8")).items():
            old, new = entry["old"], entry.get("new")
            edits = [(old, new)] if isinstance(old, str) else old
            found.append(
                Mutant(
                    name=name,
                    module=module,
                    day=entry["day"],
                    bug=entry["bug"],
                    looks=entry["looks"],
                    edits=tuple(map(tuple, edits)),
                )
            )
    return found
