"""Put a checkpoint into weights/, whole or not at all.

`download("smollm2-135m")` gives the folder, and fetches only what is missing.
"""

import errno
import sys
from pathlib import Path

from nanoserve.checkpoints.catalog import CATALOG, DEFAULT, TWIN
from nanoserve.checkpoints.making import MAKERS
from nanoserve.checkpoints.ondisk import adopted, state
from nanoserve.checkpoints.places import command, weights_dir
from nanoserve.checkpoints.staging import (
    DownloadError,
    damage,
    install,
    is_complete,
    locked,
    need_space,
    remove,
    write_stamp,
)


def say(text: str) -> None:
    """Tell the reader what is being done."""
    print(text, file=sys.stderr, flush=True)


def resolve(name: str | None, full: bool = False) -> str:
    """The catalog's name for what was asked. Raises DownloadError."""
    name = (name or (TWIN if full else DEFAULT)).strip("/")
    if full and name == TWIN:
        name = f"{TWIN}-full"
    if name not in CATALOG or (full and not name.startswith(TWIN)):
        why = f"--full is for {TWIN} only" if full else f"there is no checkpoint named {name!r}"
        raise DownloadError(f"{why[0].upper()}{why[1:]}; the names are {', '.join(CATALOG)}.")
    return name


def download(name: str | None = None, full: bool = False) -> Path:
    """The folder of a complete and verified checkpoint, fetched or made where it is missing.

    Raises DownloadError (a CheckpointError) with what happened and what to do; then nothing has
    changed under the checkpoint's name.
    """
    name = resolve(name, full)
    entry, target = CATALOG[name], weights_dir() / name
    if is_complete(target, entry.pinned):
        return target
    staging = target.with_name(f".{name}.part")
    try:
        if adopted(name, target, say):  # perhaps where nothing can be written, and no lock made
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target, say):
            if not is_complete(target, entry.pinned) and not adopted(name, target, say):
                build(name, staging)
                install(staging, target)
    except DownloadError as error:
        raise DownloadError(f"{error}{offer(name)}") from error
    except ImportError as error:
        raise DownloadError(
            f"The Python package {error.name} is missing: "
            "`python -m pip install -r requirements.txt` brings what the download needs."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DownloadError(
                f"The disk became full while {name} was written to {target.parent}. Make room, or "
                "set NANOSERVE_WEIGHTS to a folder on a larger disk; then run the same command."
            ) from error
        raise DownloadError(
            f"{error.filename or target.parent} cannot be used ({error.strerror or error}). "
            "NANOSERVE_WEIGHTS can name another folder for checkpoints."
        ) from error
    return target


def build(name: str, staging: Path) -> None:
    """Fill the staging folder, check every file in it, and stamp it."""
    entry = CATALOG[name]
    try:
        if not entry.resumes:
            remove(staging)
        staging.mkdir(exist_ok=True)
        if entry.room:
            need_space(staging, entry.room)
        MAKERS[name](staging, say)
        if problems := damage(staging, entry.pinned or {}):
            raise DownloadError(
                f"{name} did not come out as recorded ({'; '.join(problems)}). The versions in "
                "requirements.txt make it right: `python -m pip install -r requirements.txt`."
            )
        write_stamp(staging)
    except BaseException:  # Ctrl-C too
        if not entry.resumes:
            remove(staging)
        raise


def offer(name: str) -> str:
    """What else can be had when the hub cannot."""
    if CATALOG[name].pinned:
        return ""
    there = [other for other in CATALOG if other != name and state(other)[0] == "complete"]
    disk = f" On disk: {', '.join(there)} (NANOSERVE_CHECKPOINT picks one)." if there else ""
    return f"{disk} `{command('download')}` gets {DEFAULT}, which needs no account."
