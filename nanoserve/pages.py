"""Larger pages for a tensor's memory, where the system has them."""

import ctypes
import mmap

import torch

# Bytes. From this size on, malloc maps memory for a tensor alone. Smaller ones share a heap whose
# pages are used again, and there the advice costs more time than it saves.
LARGE = 2**25


def ask_for_huge_pages(tensor: torch.Tensor) -> None:
    """Advise Linux to back a tensor that is about to be filled with pages of 2 MiB, not 4 KiB.

    Memory is handed out a page at a time, when it is first written to, and each page interrupts
    the program. No value changes. Does nothing where there is no such advice to give, and for a
    tensor smaller than LARGE, not contiguous, or not on the CPU.
    https://docs.kernel.org/admin-guide/mm/transhuge.html
    """
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None or tensor.nbytes < LARGE:
        return
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        return
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE  # madvise takes whole pages
    length = tensor.data_ptr() + tensor.nbytes - start
    # A kernel without huge pages declines, and that is no error.
    ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), advice)
