"""What belongs to the repository: as git says, or, in a ZIP of it, what is not ignored."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IGNORED = {"_build", "practice", "weights", "dist", "__pycache__"}


def git(*arguments: str) -> subprocess.CompletedProcess:
    """Run git in the repository; its status is not 0 where git or the repository is missing.

    A repository of another owner is one that git does not touch.
    """
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return subprocess.CompletedProcess(arguments, 127, "", "there is no git")


def is_repository() -> bool:
    """Whether git knows this folder, and not one above it, as a repository."""
    top = git("rev-parse", "--show-toplevel")
    return top.returncode == 0 and Path(top.stdout.strip()).resolve() == ROOT


def tracked(*patterns: str) -> list[str]:
    """The files that are tracked, or would be; all, or those that match a pattern."""
    if is_repository():
        asked = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns)
        return [name for name in asked.stdout.split("\0") if name and (ROOT / name).is_file()]
    found = []
    for folder, folders, files in os.walk(ROOT):
        here = Path(folder)
        folders[:] = [
            name
            for name in folders
            if name not in IGNORED
            and not name.endswith(".egg-info")
            and (not name.startswith(".") or name in (".ci", ".github", ".binder"))
        ]
        found += [here / name for name in files]
    names = [path.relative_to(ROOT) for path in found]
    wanted = [n for n in names if not patterns or any(n.match(pattern) for pattern in patterns)]
    return sorted(map(str, wanted))
