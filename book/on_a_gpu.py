"""What was measured on a GPU, from the committed files: for the pages of Week 5.

from on_a_gpu import measured, where

where()
measured["attention"]["decode"]["8 x 1024"]["torch"]

`measured` is of an H100; `measured_on("h200")` reads another card's.
"""

import json
from pathlib import Path

BOOK = Path(__file__).resolve().parent


def measured_on(card: str = "h100") -> dict:
    """The file that `make bench-gpu` wrote on that card."""
    name = "bench-gpu.json" if card == "h100" else f"bench-gpu-{card}.json"
    return json.loads((BOOK / name).read_text("utf-8"))


measured = measured_on()


def where(found: dict = measured) -> str:
    """The card, the versions and the date, in two lines that fit a telephone."""
    m = found["machine"]
    versions = f"torch {m['torch'].partition('+')[0]}, Triton {m['triton']}"
    return f"Measured on one {m['card']},\n{versions}, {m['date']}."
