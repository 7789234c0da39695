"""A process with all loaded that every check loads, which forks for each check.

What is loaded: the libraries, and what HuggingFace computes on the checkpoints. That does not
depend on the module with the bug, or it is left out. A fork shares the memory and owns its
changes, so that no check sees another's.
"""

import atexit
import compileall
import contextlib
import gc
import inspect
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

from mutants.catalog import PACKAGE

OURS = ("AssertionError", "ConfigError", "CheckpointError")
SECONDS = 300  # on a busy machine
here = threading.local()


class Warm:
    """The process, from outside, and a copy of the package in which a bug can be planted."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.package = Path(self.folder.name) / PACKAGE.name
        # One copy for all bugs, compiled once: to make one for each costs more than to run it.
        shutil.copytree(PACKAGE, self.package, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(self.package, quiet=2)
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,))
        self.process.start()
        theirs.close()
        atexit.register(self.pipe.close)  # and it ends

    def run(self, source: str, planted: tuple[str, str] | None) -> tuple:
        """The fields of the Outcome of `source`, with a module's text planted, or as it is."""
        module, text = planted or (None, "")
        file = f"{module}.py"
        if planted:
            (self.package / file).write_text(text, "utf-8")
        try:
            self.pipe.send((self.folder.name, source, module))
            return self.pipe.recv()
        finally:
            if planted:  # with its date, so that what was compiled is good again
                shutil.copy2(PACKAGE / file, self.package / file)


def warm() -> Warm:
    """This thread's."""
    if not hasattr(here, "warm"):
        here.warm = Warm()
    return here.warm


def serve(pipe) -> None:
    """In the process: load, then a fork for each check that is asked for."""
    os.environ.setdefault("NANOSERVE_WEIGHTS", str(PACKAGE.parent / "weights"))
    with quiet():
        recorded, behind = record()
    gc.collect()
    gc.freeze()  # no fork need go through it again
    fork = multiprocessing.get_context("fork")
    with contextlib.suppress(EOFError):
        while True:
            folder, source, mutated = pipe.recv()
            receive, send = fork.Pipe(duplex=False)
            lent = {} if mutated in behind else recorded
            process = fork.Process(target=child, args=(folder, source, lent, send))
            process.start()
            send.close()
            try:
                outcome = receive.recv() if receive.poll(SECONDS) else ("crashed", "timeout")
            except EOFError:
                outcome = "crashed", "the process died"
            process.kill()
            process.join()
            receive.close()
            pipe.send(outcome)


def record() -> tuple[dict, set[str]]:
    """What a Reference of each checkpoint holds, by its path; and the modules that this took.

    nanoserve is forgotten again: each fork imports its own.
    """
    import fastapi  # noqa: F401
    import numba  # noqa: F401
    import openai.resources.chat  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch
    import uvicorn  # noqa: F401

    torch.set_num_threads(1)  # more would not live through a fork
    sys.path.insert(0, str(PACKAGE.parent))
    from nanoserve.reference import Reference

    behind = {name.partition(".")[2].replace(".", "/") for name in sys.modules if ours(name)}
    from nanoserve.checkpoints import compared_checkpoints

    recorded = {path.resolve(): vars(Reference(path)) for path in compared_checkpoints()}
    import nanoserve.kernels  # noqa: F401, which loads Triton; last, or transformers would

    for name in filter(ours, list(sys.modules)):
        del sys.modules[name]
    sys.path.remove(str(PACKAGE.parent))
    return recorded, behind


@contextlib.contextmanager
def quiet():
    """Nothing is printed."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def ours(name: str) -> bool:
    """Whether a module is nanoserve's."""
    return name.split(".")[0] == "nanoserve"


def lend(recorded: dict) -> None:
    """Give the first Reference of each checkpoint what was recorded; the others do as always."""
    from nanoserve.reference import Reference

    anew = Reference.__init__
    asked = inspect.signature(anew)

    def init(*args, **named):
        given = asked.bind(*args, **named).arguments
        self, path = given.pop("self"), Path(given.pop("path"))
        usual = all(value is asked.parameters[name].default for name, value in given.items())
        if usual and (kept := recorded.pop(path.resolve(), None)):
            vars(self).update(kept, path=path)
        else:
            anew(*args, **named)

    Reference.__init__ = init


def child(folder: str, source: str, recorded: dict, send) -> None:
    """In the fork: run `source` with the package in `folder`, and send the Outcome's fields."""
    sys.path[:] = [folder, *(p for p in sys.path if Path(p or ".").resolve() != PACKAGE.parent)]
    os.chdir(folder)
    sys.dont_write_bytecode = True  # of a bug: the next one may be as long, in the same second
    import torch

    # torch's pool of threads did not live through the fork. It is made anew here, before the
    # threads with which transformers loads a model race for it: one of them would find none.
    torch.set_num_threads(1)
    began = time.process_time()
    outcome = "passed", "", ""
    try:
        with quiet():
            if recorded:
                lend(recorded)
            exec(compile(source, "comparison", "exec"), {"__name__": "__main__"})
    except BaseException as error:
        name = type(error).__name__
        if name in OURS:
            outcome = "caught", name, str(error)
        else:
            outcome = "crashed", name, traceback.format_exc()
    send.send((*outcome, time.process_time() - began))
