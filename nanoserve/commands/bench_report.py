"""What `nanoserve bench` tells of a run and of the machine: in a line, and in JSON."""

import os
import platform
import statistics
from datetime import datetime, timezone

from nanoserve import __version__


def line(name: str, run) -> str:
    """A run in a line."""
    text = f"{name}: {run.rate:.1f} new tokens/s ({run.new_tokens} in {run.seconds:.1f} s"
    if run.cached_tokens:
        text += f", {run.cached_tokens} of {run.prompt_tokens} prompt tokens from the cache"
    text += ")"
    if run.first:
        text += f", first token after {statistics.median(run.first):.2f} s"
    if run.gaps:
        text += f", then one in {statistics.median(run.gaps) * 1000:.0f} ms (medians)"
    return text


def numbers(run) -> dict:
    """A run for JSON: counts, seconds, and percentiles of what a user waits for."""
    found = {
        "tokens_per_second": run.rate,
        "seconds": run.seconds,
        "new_tokens": run.new_tokens,
        "prompt_tokens": run.prompt_tokens,
        "cached_tokens": run.cached_tokens,
    }
    for field, waits in (("first_token_seconds", run.first), ("gap_seconds", run.gaps)):
        if len(waits) > 1:
            cut = statistics.quantiles(waits, n=100, method="inclusive")
            found[field] = {"p50": cut[49], "p90": cut[89], "p99": cut[98]}
    return found


def machine() -> dict:
    """What this was measured on, and when."""
    import torch

    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "nanoserve": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }
