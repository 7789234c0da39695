"""What the tests of the judge share. They use none of its own helpers, nor pytest's.

So they also run as scripts, against a package with a planted bug (tests/mutants/run.py).
"""

import contextlib

import torch

# torch as a notebook may have left it: its default dtype and device.
DEFAULTS = [
    (dtype, device)
    for dtype in (torch.bfloat16, torch.float16, torch.float64)
    for device in ("cpu", "meta")
]


@contextlib.contextmanager
def defaults(dtype: torch.dtype, device: str):
    """These defaults, for a while."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def complaint(act, *inputs, error=AssertionError, **named) -> str:
    """The message with which `act` refuses, by that very error."""
    try:
        act(*inputs, **named)
    except Exception as raised:
        assert type(raised) is error, f"{error.__name__} is wanted, not {raised!r}"
        return str(raised)
    raise AssertionError(f"{act.__name__} notices nothing in {inputs} {named}")


def works(act, *inputs, **named):
    """What a call gives: an error is a failure of the test, not of the test's code."""
    try:
        return act(*inputs, **named)
    except Exception as error:
        raise AssertionError(f"{act.__name__}: {error!r}") from error
