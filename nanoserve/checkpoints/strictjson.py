"""JSON out of files that nobody has vouched for: bounded, and never twice the same key."""

import errno
import json
import stat
from collections import Counter
from pathlib import Path
from reprlib import repr as short  # of bounded length and depth, whatever the value
from typing import BinaryIO

# Bytes of JSON that are read. A 405B Llama's header has a sixteenth of it; some trainers write
# their log into one. Parsed, JSON can take 40 times its length in memory: this limits that too.
MAX_JSON = 1 << 21


def printable(text: str) -> str:
    """One line, at most 500 characters, in which a name from a file cannot steer a terminal."""
    if len(text) > 500:
        text = f"{text[:245]} ... {text[-245:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def open_file(file: Path) -> BinaryIO:
    """Open a file to read. OSError for what is none: a pipe would block, a device never end."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a file", str(file))
    return file.open("rb")


def json_file(file: Path) -> dict:
    """The JSON object in a file. Raises OSError, or ValueError as read_json does."""
    with open_file(file) as f:
        data = f.read(MAX_JSON + 1)
    if len(data) > MAX_JSON:
        raise ValueError(f"more than {MAX_JSON} bytes are not read")
    return read_json(data)


def read_json(data: bytes) -> dict:
    """Parse a JSON object. Raises ValueError, also where a key stands twice."""

    def once(pairs):
        values = dict(pairs)
        if len(values) < len(pairs):
            (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
            raise ValueError(f"the key {short(twice)} is there twice")
        return values

    try:
        values = json.loads(data, object_pairs_hook=once)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(values, dict):
        raise ValueError(f"an object is wanted, found {short(values)}")
    return values
