"""The prose of "How fast is plain?" says what bench.json holds."""

import json
from pathlib import Path
from statistics import median

import pytest
from tracked import git

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "book" / "bench.json"
MEASURED = json.loads(FILE.read_text("utf-8"))
SMALL, LARGE = MEASURED["load"].values()
changed = git("diff", "--quiet", "HEAD", "--", str(FILE)).returncode
pytestmark = pytest.mark.skipif(
    changed == 1, reason="bench.json was measured anew: write the text anew before it is committed"
)


def against(found: dict, field: str, other: str) -> float:
    """Our median over another contestant's."""
    return median(found["ours"][field]) / median(found[other][field])


def test_loading():
    again = [against(f, "again", o) for o in ("hf-eager", "floor") for f in (SMALL, LARGE)]
    assert [f"{ratio:.2f}" for ratio in again] == ["0.53", "1.00", "1.25", "1.17"]
    assert 0.4 < against(LARGE, "first", "hf-eager") < 0.6
    assert max(against(f, "anonymous", "floor") for f in (SMALL, LARGE)) < 1.05
    assert max(SMALL["ours"]["first"]) > 2 * median(SMALL["ours"]["first"])  # the run far off


@pytest.mark.parametrize("key", MEASURED["forward"])
def test_forward(key):
    found = MEASURED["forward"][key]
    for field in ("block", "blocks"):
        apart = min(found["ours"][field]) > max(found["hf-eager"][field])
        assert against(found, field, "hf-eager") <= 1 or not apart
    ratio = against(found, "block", "hf-eager")
    if key.endswith("T 128"):
        assert 0.97 < ratio < 1.03
    if key.endswith("T 2048"):
        assert 0.7 < ratio < 0.9 and 1.7 < against(found, "block", "hf-sdpa") < 2.3


def test_memory():
    for key, found in MEASURED["memory"].items():
        if key.endswith("T 2048"):
            assert 4 < against(found, "anonymous", "hf-sdpa") < 5
            assert 0.98 < against(found, "anonymous", "hf-eager") < 1.02
