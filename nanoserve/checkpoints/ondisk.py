"""How checkpoints stand on disk: complete, damaged, put there by other means."""

import errno
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nanoserve.checkpoints.catalog import CATALOG
from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.checkpoints.places import weights_dir
from nanoserve.checkpoints.staging import (
    DownloadError,
    damage,
    described,
    human,
    is_complete,
    read_stamp,
    save_stamp,
)


def refuse_foreign(name: str, target: Path) -> None:
    """DownloadError where a folder that has no stamp is not complete: it is not ours to replace."""
    if problems := unstamped(name, target):
        raise DownloadError(
            f"{target} is there, is not complete ({problems[0]}) and was not made by this "
            "command: move it away, then run the same command again."
        )


def adopted(name: str, target: Path, say: Callable[[str], None]) -> bool:
    """Whether the folder is complete though it bears no stamp: put there by other means.

    False where it is missing, or is ours and damaged; such a folder is replaced. Raises
    DownloadError where it is neither complete nor ours: nobody's files are thrown away.
    """
    if read_stamp(target) is not None or not target.exists():
        return False
    if target.is_dir() and not any(target.iterdir()):
        return False
    refuse_foreign(name, target)
    files = described(target)
    try:
        save_stamp(target, files)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        say(f"{target} is read-only, so the next run will look through it again")
    return True


def unstamped(name: str, target: Path) -> list[str]:
    """What is wrong with a folder that has no stamp: by its hashes, else by its headers."""
    pinned = CATALOG[name].pinned
    if pinned:
        return damage(target, pinned)
    from nanoserve.loader import read_index  # with torch, which takes seconds to import

    if lost := [path.name for path in target.iterdir() if path.is_symlink() and not path.exists()]:
        return [f"{lost[0]} is a link to nothing"]
    if not (target / "config.json").is_file():
        return ["config.json is missing"]
    try:
        read_index(target)
    except CheckpointError as error:
        return [str(error)]
    return []


def verify(name: str) -> list[str]:
    """What is wrong with a checkpoint on disk, every file read. Marks a damaged one as such.

    Raises DownloadError where it is not there, or neither complete nor made by this command.
    """
    target = weights_dir() / name
    if not target.is_dir():
        raise DownloadError(f"{name} is not in {weights_dir()}.")
    files = read_stamp(target)
    if files is None:
        refuse_foreign(name, target)
        return []
    known = {n: info["sha256"] for n, info in files.items()}
    problems = damage(target, CATALOG[name].pinned or known)
    if problems:
        # A file of the right size is no longer taken for whole: the next download replaces it.
        with suppress(OSError):  # a read-only checkpoint is reported all the same
            save_stamp(target, {n: {"size": -1, "sha256": known[n]} for n in known})
    return problems


def state(name: str) -> tuple[str, str]:
    """How a checkpoint stands on disk, and its size."""
    entry, target = CATALOG[name], weights_dir() / name
    part = target.with_name(f".{name}.part")
    if is_complete(target, entry.pinned):
        return "complete", human(sum(info["size"] for info in read_stamp(target).values()))
    if target.exists():
        return "unchecked" if read_stamp(target) is None else "damaged", human(entry.size)
    if part.is_dir():
        there = sum(path.stat().st_size for path in part.iterdir() if path.is_file())
        return f"begun, {human(there)}", human(entry.size)
    return "absent", human(entry.size)


def show() -> None:
    """Print every checkpoint: state, size, licence."""
    print(f"in {weights_dir()}")
    for name, entry in CATALOG.items():
        how, size = state(name)
        print(f"  {name:<24} {how:<16} {size:>9}  {entry.licence:<20} {entry.about}")
