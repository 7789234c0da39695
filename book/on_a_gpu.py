"""What was measured on a GPU, from the committed bench-gpu.json: for the pages of Week 5.

from on_a_gpu import measured, where

where()
measured["attention"]["decode"]["8 x 1024"]["torch"]
"""

import json
from pathlib import Path

measured = json.loads((Path(__file__).resolve().parent / "bench-gpu.json").read_text("utf-8"))


def where() -> str:
    """The card, the versions and the date, in two lines that fit a telephone."""
    m = measured["machine"]
    versions = f"torch {m['torch'].partition('+')[0]}, Triton {m['triton']}"
    return f"Measured on one {m['card']},\n{versions}, {m['date']}."
