"""Running a check against a package with a planted bug, in a process of its own."""

import contextlib
import io
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

from mutants.catalog import PACKAGE, Mutant

BOOK = PACKAGE.parent / "book"
HEAVY = ["torch", "transformers.models.llama.modeling_llama", "tokenizers", "safetensors.torch"]


@dataclass(frozen=True)
class Outcome:
    """How a check ended: `caught`, `passed` or `crashed`; by which error, of what size."""

    verdict: str
    error: str = ""
    message: str = ""

    @property
    def difference(self) -> float | None:
        """The largest difference that the check measured, where it measured one."""
        found = re.search(r"Greatest absolute difference: (\S+)|difference: (\S+)", self.message)
        return float(found[1] or found[2]) if found else None


def comparison_cell(day: str) -> str:
    """The source of a day's comparison cell."""
    cells = json.loads((BOOK / f"{day}.ipynb").read_text("utf-8"))["cells"]
    tagged = [c for c in cells if "comparison" in c["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{day}.ipynb has {len(tagged)} cells tagged comparison, 1 is wanted")
    return "".join(tagged[0]["source"])


def run_check(source: str, mutant: Mutant | None) -> Outcome:
    """Run `source` against nanoserve with `mutant` planted, or as it is.

    The process is new but has the libraries loaded already: nanoserve is not among them.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(PACKAGE, Path(folder) / "nanoserve")
        if mutant:
            (Path(folder) / "nanoserve" / f"{mutant.module}.py").write_text(
                mutant.source(), "utf-8"
            )
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(folder, source, send))
        process.start()
        send.close()
        try:
            outcome = receive.recv() if receive.poll(120) else Outcome("crashed", "timeout")
        except EOFError:
            outcome = Outcome("crashed", "the process died")
        process.kill()
        process.join()
    return outcome


def child(folder: str, source: str, send) -> None:
    """In the new process: run `source` with the package in `folder`, and send the Outcome."""
    sys.path[:] = [folder, *(p for p in sys.path if Path(p or ".").resolve() != PACKAGE.parent)]
    os.environ["NANOSERVE_WEIGHTS"] = os.environ.get(
        "NANOSERVE_WEIGHTS", str(PACKAGE.parent / "weights")
    )
    os.chdir(folder)
    import torch

    torch.set_num_threads(1)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(source, "comparison", "exec"), {"__name__": "__main__"})
        outcome = Outcome("passed")
    except BaseException as error:
        ours = type(error).__name__ in ("AssertionError", "ConfigError", "CheckpointError")
        verdict = "caught" if ours else "crashed"
        message = str(error) if ours else traceback.format_exc()
        outcome = Outcome(verdict, type(error).__name__, message)
    send.send(outcome)
