"""What a notebook shows of an error: where the message says all, the message alone.

A verdict of the judge (nanoserve's comparison and checks), an error class of nanoserve's own such
as ConfigError, a cell that cannot be placed, and a blank of a practice notebook need no traceback.
Everything else keeps its own; in practice less the frames of code that is not the reader's, which
would show the answers.
"""

import linecache
import types
from collections.abc import Iterator
from pathlib import Path

from tangle import package

TODO = "is yours to write"  # ends what a practice notebook's blank says
JUDGES = ("nanoserve.comparison", "nanoserve.checks")
CALLING = str(Path("torch", "nn", "modules", "module.py"))  # torch's way into a forward
STOPPED = "The comparison cannot go on with what your code has given it, perhaps nothing: "
UNBORN = "__init__() call"  # ends what torch says of a module that is not set up yet


def install(shell) -> None:
    """Show errors of this shell so."""

    def handle(shell, etype, value, traceback, tb_offset=None) -> None:
        if says_all(value):
            value._render_traceback_ = lambda: [told(value, shell)]
        elif hasattr(shell, "desk") and stopped(value, shell):
            value._render_traceback_ = lambda: [f"{STOPPED}{value!r}"]
        elif hasattr(shell, "desk") and any(map(is_judge, frames(value))):
            name = type(value).__name__
            value._render_traceback_ = lambda: [f"{name}: {value}", *whence(value, shell)]
        elif hasattr(shell, "desk"):
            traceback = less(traceback, shell)
            for other in causes(value):
                other.__traceback__ = less(other.__traceback__, shell)
        shell.showtraceback((etype, value, traceback), tb_offset=tb_offset)

    shell.set_custom_exc((Exception,), handle)


def says_all(error: Exception) -> bool:
    """Whether an error's message is all that a reader needs."""
    if not str(error):
        return False
    if isinstance(error, NotImplementedError):
        return str(error).endswith(TODO)
    if isinstance(error, AssertionError):
        return any(map(is_judge, frames(error)))
    return type(error).__module__.split(".")[0] in ("nanoserve", "cells")


def stopped(error: Exception, shell) -> bool:
    """Whether a check broke off in its own lines, as it does where a function returns nothing."""
    codes = [frame.tb_frame.f_code for frame in frames(error) if in_package(frame.tb_frame.f_code)]
    return any(map(is_judge, frames(error))) and not any(is_readers(c, shell) for c in codes)


def told(error: Exception, shell) -> str:
    """The message, and where in the reader's code an error was met that the judge then took."""
    # Triton's interpreter wraps the error of a kernel's line, once a call: that line is wanted.
    own = (e for e in causes(error) if type(e).__name__ != "InterpreterError")
    places = (whence(cause, shell) for cause in own)
    return "\n".join([str(error), *next(filter(None, places), [])])


def whence(error: BaseException, shell) -> list[str]:
    """Where in the reader's code an error was raised, and the shapes of the tensors there."""
    for frame in reversed(list(frames(error))):
        code = frame.tb_frame.f_code
        if in_package(code) and not is_judge(frame) and is_readers(code, shell):
            text = linecache.getline(code.co_filename, frame.tb_lineno).strip()
            lines = [f"It was raised in {name_of(code)}, at `{text}`"]
            shapes = shapes_in(frame.tb_frame.f_locals)
            lines += [f"Shapes there: {shapes}"] if shapes else []
            bare = isinstance(error, AttributeError) and str(error).endswith(UNBORN)
            return lines + ["Begin `__init__` with `super().__init__()`."] * bare
    return []


def shapes_in(names: dict) -> str:
    """The tensors among a frame's variables, with their shapes."""
    found = {n: x for n, x in names.items() if hasattr(x, "shape") and hasattr(x, "dtype")}
    return ", ".join(f"{name} {[*x.shape]}" for name, x in found.items())


def causes(error: BaseException) -> Iterator[BaseException]:
    """The errors that an error came from, the nearest first."""
    seen = {id(error)}
    while error := error.__cause__ or error.__context__:
        if id(error) in seen:
            return
        seen.add(id(error))
        yield error


def frames(error: BaseException) -> Iterator[types.TracebackType]:
    """An error's traceback, frame by frame, the innermost last."""
    traceback = error.__traceback__
    while traceback:
        yield traceback
        traceback = traceback.tb_next


def less(traceback: types.TracebackType | None, shell) -> types.TracebackType | None:
    """A traceback without what is neither the page's nor the reader's."""
    if traceback is None:
        return None
    below, code = less(traceback.tb_next, shell), traceback.tb_frame.f_code
    if code.co_filename.endswith(CALLING) or (in_package(code) and not is_readers(code, shell)):
        return below
    return types.TracebackType(below, traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno)


def in_package(code: types.CodeType) -> bool:
    """Whether code stands in a file of nanoserve."""
    return Path(code.co_filename).is_relative_to(package())


def is_judge(frame: types.TracebackType) -> bool:
    return frame.tb_frame.f_globals.get("__name__", "").startswith(JUDGES)


def is_readers(code: types.CodeType, shell) -> bool:
    """Whether it may be shown: in practice, what the reader wrote or has whole on the page."""
    desk = getattr(shell, "desk", None)
    return desk is None or desk.owns(name_of(code)) or desk.gives(name_of(code))


def name_of(code: types.CodeType) -> str:
    """A function's qualified name; Python 3.10 knows its last part alone."""
    return getattr(code, "co_qualname", code.co_name)
