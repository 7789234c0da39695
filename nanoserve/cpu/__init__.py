"""What a CPU is given to do, faster than the plain model: products, and blocks of few rows."""

from nanoserve.model import Llama
from nanoserve.products import use_onednn


def make_fast(model: Llama, on: bool = True) -> None:
    """Let a model be as fast as this machine's CPU can, or put it back as it was.

    oneDNN multiplies many rows, and where numba is installed its loops take the blocks and the
    head of a few. Nothing changes for a model that is not float32 on the CPU.
    """
    use_onednn(model, on)
    try:
        import numba  # noqa: F401
    except ImportError:  # it also raises this for a NumPy that is too new for it
        return
    from nanoserve.cpu.fewrows import use_few_rows

    use_few_rows(model, on)
