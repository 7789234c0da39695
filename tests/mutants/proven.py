"""With which code all planted bugs were last seen caught: a digest, written with the bugs page.

Where the code is another, `make test` plants them all, and so does CI. Where it is still this one,
both plant a tenth and at least one for each judge, others at each commit, so that in time every
bug is planted again and none waits for the next edit. `make bugs` always plants all.
"""

import hashlib
import os
import subprocess
from pathlib import Path

from mutants.catalog import PACKAGE, Mutant, catalog
from mutants.run import judge_source

HERE = Path(__file__).resolve().parent
RECORD = HERE / "proven.sha256"
SHARE = 10  # one bug in so many


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


def commit() -> str:
    """The last commit's id, the same in every process of a run; empty where there is no git."""
    ask = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(ask, cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def drawn(mutants: list[Mutant], seed: str) -> list[Mutant]:
    """A tenth of `mutants`, and one of each judge that has none among these; in their order.

    The seed and a mutant's name are its lot. So the draw is the same on any machine, and a new
    mutant does not change the lots of the others.
    """

    def lot(mutant: Mutant) -> bytes:
        return hashlib.sha256(f"{seed} {mutant.name}".encode()).digest()

    ranked = sorted(mutants, key=lot)
    first = {mutant.judge: mutant for mutant in reversed(ranked)}.values()
    chosen = {mutant.name for mutant in (*first, *ranked[: -(-len(ranked) // SHARE)])}
    return [mutant for mutant in mutants if mutant.name in chosen]
