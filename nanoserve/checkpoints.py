"""Where checkpoints live, and which one the notebooks use."""

import os
from pathlib import Path

from nanoserve.headers import CheckpointError, pickles
from nanoserve.strictjson import printable

DEFAULT = "smollm2-135m"
TWIN = "llama-3.2-1b-twin"


def weights_dir() -> Path:
    """The folder that holds checkpoints: $NANOSERVE_WEIGHTS, else weights/ beside the package."""
    if chosen := os.environ.get("NANOSERVE_WEIGHTS"):
        return Path(os.path.expanduser(chosen)).absolute()
    return Path(__file__).resolve().parent.parent / "weights"


def checkpoint_path(name: str | os.PathLike | None = None) -> Path:
    """The folder of a checkpoint that is present.

    `name` is a name in weights/ or a path to a folder; None means $NANOSERVE_CHECKPOINT, or the
    default. Raises CheckpointError, with the command to run, where there is no such folder.
    """
    name = str(name or os.environ.get("NANOSERVE_CHECKPOINT") or DEFAULT)
    # os.path says no where Path would fail: a name too long, a folder that may not be searched.
    for path in (os.path.join(weights_dir(), name), os.path.expanduser(name)):
        if os.path.isfile(os.path.join(path, "config.json")):
            return Path(path).resolve()
    raise CheckpointError(printable(why_not(name)))


def why_not(name: str) -> str:
    """Why `name` is no checkpoint, and what to do, in one sentence."""
    from nanoserve.catalog import CATALOG

    if name in CATALOG:
        return (
            f"There is no checkpoint {name!r} in {weights_dir()}: run "
            f"`python -m nanoserve.download {name}` in the repository's folder."
        )
    path = os.path.expanduser(name)
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
        "`python -m nanoserve.download` (`--list` shows all names)."
    )


def compared_checkpoints() -> list[Path]:
    """What a comparison cell checks: the chosen checkpoint and the twin, each once."""
    return list(dict.fromkeys([checkpoint_path(), checkpoint_path(TWIN)]))
