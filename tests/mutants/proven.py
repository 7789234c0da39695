"""With which code all planted bugs were last seen caught: a digest, written with the bugs page.

Where it is still the code, `make test` plants one bug for each judge, which shows that planting
works here, and `make bugs` and CI plant them all.
"""

import hashlib
import os
from pathlib import Path

from mutants.catalog import PACKAGE, catalog
from mutants.run import judge_source

HERE = Path(__file__).resolve().parent
RECORD = HERE / "proven.sha256"


def digest() -> str:
    """Of all that a verdict depends on: package, judges, bugs, and the libraries' versions."""
    files = [*PACKAGE.rglob("*.py"), *HERE.rglob("*.toml"), *HERE.glob("*.py")]
    files.append(PACKAGE.parent / "requirements.txt")
    found = hashlib.sha256()
    for path in sorted(files):
        found.update(str(path.relative_to(PACKAGE.parent)).encode() + b"\0")
        found.update(hashlib.sha256(path.read_bytes()).digest())
    for judge in sorted({mutant.judge for mutant in catalog()}):
        found.update(judge_source(judge).encode() + b"\0")
    return found.hexdigest()


def proven() -> bool:
    """Whether this code is the one on record, and nobody asks for all bugs."""
    if os.environ.get("NANOSERVE_ALL_BUGS"):
        return False
    return RECORD.exists() and RECORD.read_text("utf-8").strip() == digest()


def record() -> None:
    """This is the code."""
    RECORD.write_text(digest() + "\n", "utf-8")
