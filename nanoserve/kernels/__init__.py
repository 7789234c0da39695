"""What runs on a GPU: kernels in Triton, and what joins them. Reached from the runner alone.

Nothing imports Triton where no GPU is asked for. Where there is none, Triton's interpreter runs
every kernel on the CPU, slowly: that is how pages and tests try them.
"""

import contextlib
import os
import sys
from importlib.util import find_spec

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported
    if find_spec("triton") is None:
        # `make setup` keeps it in a folder of its own: where it is found, transformers imports it.
        sys.path.append(os.path.join(sys.prefix, "triton"))
        with contextlib.suppress(ImportError):
            import triton  # noqa: F401, from here on it is found without the folder
        sys.path.pop()
