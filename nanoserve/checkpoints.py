"""Where checkpoints live, and which one the notebooks use."""

import os
from pathlib import Path

from nanoserve.headers import CheckpointError

DEFAULT = "smollm2-135m"
TWIN = "llama-3.2-1b-twin"


def weights_dir() -> Path:
    """The folder that holds checkpoints: $NANOSERVE_WEIGHTS, else weights/ beside the package."""
    return Path(
        os.environ.get("NANOSERVE_WEIGHTS") or Path(__file__).resolve().parent.parent / "weights"
    )


def checkpoint_path(name: str | os.PathLike | None = None) -> Path:
    """The folder of a checkpoint that is present.

    `name` is a name in weights/ or a path to a folder; None means $NANOSERVE_CHECKPOINT, or the
    default. Raises CheckpointError, with the command to run, where there is no such folder.
    """
    name = str(name or os.environ.get("NANOSERVE_CHECKPOINT") or DEFAULT)
    for path in (weights_dir() / name, Path(name).expanduser()):
        if (path / "config.json").is_file():
            return path.resolve()
    raise CheckpointError(
        f"There is no checkpoint {name!r} in {weights_dir()}: run "
        f"`python -m nanoserve.download {name}` in the repository's folder "
        "(`--list` shows the names)."
    )


def compared_checkpoints() -> list[Path]:
    """What a comparison cell checks: the chosen checkpoint and the twin, each once."""
    return list(dict.fromkeys([checkpoint_path(), checkpoint_path(TWIN)]))
