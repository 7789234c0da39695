"""Where checkpoints live, and which one the notebooks use."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from nanoserve.checkpoints.catalog import CATALOG, DEFAULT, TWIN
from nanoserve.checkpoints.headers import CheckpointError, pickles
from nanoserve.checkpoints.strictjson import printable

HOME = Path(__file__).resolve().parents[2]  # the repository, where it is one


def weights_dir() -> Path:
    """The folder that holds checkpoints: $NANOSERVE_WEIGHTS, else weights/ beside the package."""
    return from_home(os.environ.get("NANOSERVE_WEIGHTS") or HOME / "weights")


def from_home(path: str | os.PathLike) -> Path:
    """A path out of the environment: a relative one begins at the repository.

    So make, in the repository's folder, and a notebook, in book/, mean the same one.
    """
    base = HOME if (HOME / "pyproject.toml").is_file() else Path.cwd()
    return base / os.path.expanduser(path)


def checkpoint_path(name: str | os.PathLike | None = None) -> Path:
    """The folder of a checkpoint that is present.

    `name` is a name in weights/ or a path to a folder; None means $NANOSERVE_CHECKPOINT, whose
    relative path begins at the repository, or the default. Raises CheckpointError, with the
    command to run, where there is no such folder.
    """
    chosen = os.environ.get("NANOSERVE_CHECKPOINT") or DEFAULT
    where = os.path.expanduser(name) if name else str(from_home(chosen))
    name = str(name or chosen)
    # os.path says no where Path would fail: a name too long, a folder that may not be searched.
    for path in (os.path.join(weights_dir(), name), where):
        if os.path.isfile(os.path.join(path, "config.json")):
            return Path(path).resolve()
    raise CheckpointError(printable(why_not(name, where)))


def command(*words: str) -> str:
    """The line that runs `nanoserve` with these words: by its name where a shell would find it."""
    script = Path(sys.executable).with_name("nanoserve")
    if shutil.which("nanoserve") == str(script):
        return shlex.join(["nanoserve", *words])
    return shlex.join([sys.executable, "-m", "nanoserve", *words])


def why_not(name: str, path: str) -> str:
    """Why `name`, which may be `path`, is no checkpoint, and what to do, in one sentence."""
    if name in CATALOG:
        return (
            f"There is no checkpoint {name!r} in {weights_dir()}: run "
            f"`{command('download', name)}`."
        )
    there = f"{path!r} is a file, not a checkpoint's folder"
    if os.path.isdir(path):
        found = pickles(Path(path))
        also = f", only {found[0]!r}, a pickle, which is never opened" if found else ""
        there = f"{path!r} has no config.json{also}"
    elif not os.path.exists(path):
        there = f"There is no checkpoint {name!r}, neither in {weights_dir()} nor as a folder"
    chosen = " in NANOSERVE_CHECKPOINT" if os.environ.get("NANOSERVE_CHECKPOINT") == name else ""
    return (
        f"{there}: name another one{chosen}, or get the default by "
        f"`{command('download')}` (`--list` shows all names)."
    )


def compared_checkpoints() -> list[Path]:
    """What a comparison cell checks: the chosen checkpoint and the twin, each once."""
    return list(dict.fromkeys([checkpoint_path(), checkpoint_path(TWIN)]))
