"""Runs a notebook's cells in a fork of a process that has the libraries loaded already.

A kernel takes seconds to start and to import them; here a day takes as long as its cells do. The
days also run in kernels of their own, by nbval and in the build: this is for the many other runs.
"""

import multiprocessing
import os
import traceback
from pathlib import Path

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
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=child, args=([before, *sources], dict(os.environ), send))
    process.start()
    send.close()
    try:
        return receive.recv()
    except EOFError:
        return "", "the process died"
    finally:
        process.join()


def child(sources: list[str], environment: dict[str, str], send) -> None:
    """In the fork: what `run` gives."""
    os.environ.update(environment)  # the process forked from may be older
    os.chdir(BOOK)
    import torch
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    torch.set_num_threads(1)  # two notebooks at a time
    shell, value = InteractiveShell.instance(), None
    for number, source in enumerate(sources):
        with capture_output() as printed:
            result = shell.run_cell(source)
        error = result.error_before_exec or result.error_in_exec
        if error or printed.stderr:
            told = printed.stderr or "".join(traceback.format_exception(error))
            send.send(("", f"cell {number}, {source[:60]!r}: {told}"))
            return
        value = result.result
    send.send((repr(value), ""))
