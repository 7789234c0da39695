"""Llama-3.2-1B from the hub: config, tokenizer and safetensors, resumed where it was cut.

snapshot_download of huggingface_hub 2 throws a file's first half away when it is interrupted (its
pull request 4228), so the files are taken one by one with that library's own http_get, which can
go on from a given byte. Redirects, tokens, retries and progress bars are the library's.
"""

import hashlib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from nanoserve.checkpoints.hub_errors import BETWEEN, explained, understood
from nanoserve.checkpoints.hub_settings import look_through
from nanoserve.checkpoints.staging import DownloadError, need_space, sha256

REPO = "meta-llama/Llama-3.2-1B"
WANTED = [
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "*.safetensors",
    "*.safetensors.index.json",
]


def fetch(folder: Path, say: Callable[[str], None]) -> None:
    """Download what is wanted into `folder`, or go on where an earlier run stopped.

    Every file is held against the hub's own hash of it. Raises DownloadError.
    """
    look_through()
    from huggingface_hub import HfApi, constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, logging

    logging.set_verbosity_error()  # its warnings name signed addresses
    say(f"asking the hub for {REPO}")
    with explained(REPO), understood():
        info = HfApi().model_info(REPO, files_metadata=True, timeout=30)
    # No folders: original/ is the same weights once more, as a pickle.
    files = [
        file
        for file in info.siblings or []
        if any(fnmatch(file.rfilename, pattern) for pattern in WANTED)
        and not {"/", "\\"} & set(file.rfilename)
    ]
    names = {file.rfilename for file in files}
    if "config.json" not in names or not any(n.endswith(".safetensors") for n in names):
        raise DownloadError(f"{REPO} on the hub holds no config.json or no safetensors file.")
    if bare := sorted(file.rfilename for file in files if not hash_of(file)):
        raise DownloadError(
            f"{constants.ENDPOINT} gives no hash of {', '.join(bare[:3])}, so what came from "
            "there could not be checked: unset HF_ENDPOINT, or name a mirror that passes them on."
        )
    paths = {file.rfilename: (folder / file.rfilename, part_of(folder, file)) for file in files}
    for stale in set(folder.iterdir()) - {path for pair in paths.values() for path in pair}:
        stale.unlink()  # of another revision
    there = sum(path.stat().st_size for path in folder.iterdir())
    need_space(folder, max(0, sum(file.size or 0 for file in files) - there))
    # The small files first: where the licence is missing, the reader hears it at once.
    for file in sorted(files, key=lambda file: file.size or 0):
        path, part = paths[file.rfilename]
        if path.is_file() and matches(path, file):
            continue
        path.unlink(missing_ok=True)
        if part.is_file() and file.size is not None and part.stat().st_size > file.size:
            part.unlink()
        url = hf_hub_url(REPO, file.rfilename, revision=info.sha)
        get(url, part, file.size, build_hf_headers(library_name="nanoserve"))
        if not matches(part, file):
            part.unlink()
            raise DownloadError(
                f"{file.rfilename} arrived with another hash than the hub gives for it, and was "
                f"thrown away: run the same command again; the other files are kept. {BETWEEN}"
            )
        part.replace(path)


def part_of(folder: Path, file) -> Path:
    """Where the first bytes of a file wait for the rest: by hash, so that revisions never mix."""
    return folder / f".{file.rfilename}.{hash_of(file)[:16]}.part"


def hash_of(file) -> str:
    """The hub's hash of a file: sha256 of a large one, git's sha1 of a small one."""
    return (file.lfs.sha256 if file.lfs else file.blob_id) or ""


def matches(path: Path, file) -> bool:
    """Whether the file on disk has the hub's hash."""
    if file.lfs:
        return sha256(path) == file.lfs.sha256
    data = path.read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return git.hexdigest() == file.blob_id


def get(url: str, part: Path, size: int | None, headers: dict[str, str]) -> None:
    """Fetch the bytes that `part` lacks. What has come stays, whatever happens."""
    from huggingface_hub.file_download import http_get

    with open(part, "ab") as out, explained(REPO, part):
        http_get(
            url,
            out,
            resume_size=out.tell(),
            headers=headers,
            expected_size=size,
            displayed_filename=part.name[1:].rsplit(".", 2)[0],
        )
