"""Runs a notebook's cells in a fork of a process that has the libraries loaded already.

A kernel takes seconds to start and to import them; here a day takes as long as its cells do. The
days also run in kernels of their own, by nbval and in the build: this is for the many other runs.
"""

import contextlib
import io
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

BOOK = Path(__file__).resolve().parent.parent / "book"
LIBRARIES = [
    "IPython.core.interactiveshell",
    "matplotlib.pyplot",
    "safetensors.torch",
    "torch",
    "torch.utils.flop_counter",
    "transformers.models.llama.modeling_llama",
]


def run(sources: list[str], before: str = "") -> tuple[str, str]:
    """Run cells in order in book/; (the last one's value as text, what went wrong or "").

    `before` is run first, as one more cell.
    """
    return fork(valued, [before, *sources])


def show(sources: list[str], folder: Path, environment: Mapping[str, str]) -> list[str]:
    """Run cells in order in `folder`, whatever goes wrong; what each shows, its error too."""
    return fork(shown, sources, folder, environment=environment)


def fork(act: Callable, *inputs: Any, environment: Mapping[str, str] = os.environ) -> Any:
    """What `act(*inputs)` gives in a fork. EOFError where the fork dies of it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(act, inputs, dict(environment), send))
    process.start()
    send.close()
    try:
        return receive.recv()
    finally:
        process.join()


def child(act: Callable, inputs: tuple, environment: dict[str, str], send) -> None:
    """In the fork: send what `fork` gives."""
    os.environ.clear()  # the process forked from may be older
    os.environ.update(environment)
    import torch

    torch.set_num_threads(1)  # two notebooks at a time
    send.send(act(*inputs))


def valued(sources: list[str]) -> tuple[str, str]:
    """In the fork: what `run` gives."""
    os.chdir(BOOK)
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell, value = InteractiveShell.instance(), None
    for number, source in enumerate(sources):
        with capture_output() as printed:
            result = shell.run_cell(source)
        error = result.error_before_exec or result.error_in_exec
        if error or printed.stderr:
            told = printed.stderr or "".join(traceback.format_exception(error))
            return "", f"cell {number}, {source[:60]!r}: {told}"
        value = result.result
    return repr(value), ""


def shown(sources: list[str], folder: Path) -> list[str]:
    """In the fork: what `show` gives."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    from IPython.core.interactiveshell import InteractiveShell

    shell, found = InteractiveShell.instance(colors="nocolor"), []
    for source in sources:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            shell.run_cell(source, store_history=True)
        found.append(printed.getvalue())
    return found
