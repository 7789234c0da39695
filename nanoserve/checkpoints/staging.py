"""Checkpoints appear whole: built beside their place, checked, stamped, then renamed.

The stamp is a file in the checkpoint's folder with the size and sha256 of every other file.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nanoserve.checkpoints.headers import CheckpointError

STAMP = ".nanoserve.json"


class DownloadError(CheckpointError):
    """A checkpoint that could not be had, in words for the reader: what, where, what to do."""


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def human(size: int) -> str:
    """A number of bytes as people write it."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def read_stamp(folder: Path) -> dict[str, dict] | None:
    """What the stamp says of each file, or None where there is no stamp."""
    try:
        files = json.loads((folder / STAMP).read_text(encoding="utf-8"))["files"]
        return {
            name: {"size": info["size"], "sha256": info["sha256"]} for name, info in files.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_stamp(folder: Path) -> None:
    """Write down the size and sha256 of every file in the folder."""
    save_stamp(folder, described(folder))


def described(folder: Path) -> dict[str, dict]:
    """The size and sha256 of every file in the folder. OSError where one cannot be read."""
    return {
        path.name: {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != STAMP
    }


def save_stamp(folder: Path, files: dict[str, dict]) -> None:
    """Put the stamp into its place in one step, so that a half-written one is never read."""
    text = json.dumps({"files": files}, indent=2) + "\n"
    draft = folder / f"{STAMP}.{os.getpid()}"
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, folder / STAMP)


def is_complete(folder: Path, pinned: dict[str, str] | None) -> bool:
    """Whether every stamped file is there with its size. Reads no weights, so it is quick.

    `pinned` holds the sha256 that files must have, where that is known beforehand. What else is
    in the folder is its owner's.
    """
    files = read_stamp(folder)
    if not files:
        return False
    stamped = {name: info["sha256"] for name, info in files.items()}
    if not (pinned or {}).items() <= stamped.items():
        return False
    paths = {name: folder / name for name in files}
    return all(paths[n].is_file() and paths[n].stat().st_size == files[n]["size"] for n in files)


def damage(folder: Path, expected: dict[str, str]) -> list[str]:
    """What is wrong with the files, each read whole and held against its sha256."""
    problems = []
    for name, wanted in expected.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif (found := sha256(path)) != wanted:
            problems.append(
                f"{name} ({path.stat().st_size} bytes) has sha256 {found}, expected {wanted}"
            )
    return problems


@contextmanager
def locked(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Only one process at a time makes this checkpoint; a second one waits for the first."""
    import fcntl

    with open(folder.parent / f".{folder.name}.lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another download of {folder.name} is running; waiting for it to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            # Lustre without its option, NFS without its daemon, a mounted bucket.
            if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL):
                raise
            say(f"no lock can be had in {folder.parent}: start no second download meanwhile")
        yield


def need_space(folder: Path, needed: int) -> None:
    """Raises DownloadError where the disk that holds `folder` has too little room."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(
            f"{human(needed)} are needed in {folder}, and {human(free)} are free: make room, or "
            "set NANOSERVE_WEIGHTS to a folder on a larger disk. Nothing was fetched."
        )


def install(staging: Path, target: Path) -> None:
    """Give a finished folder its name; a damaged one that stood there goes.

    Between the two renames there is no checkpoint at all: it may be missing, never half there.
    """
    old = target.with_name(f".{target.name}.old")
    remove(old)
    if target.is_symlink() or target.exists():
        os.replace(target, old)
    os.replace(staging, target)
    remove(old)


def remove(path: Path) -> None:
    """Remove a folder, or only the link where it is one."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
