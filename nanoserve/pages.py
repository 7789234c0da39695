"""Larger pages for tensors' memory, while they come sooner."""

import ctypes
import mmap
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Bytes. From this size on, malloc maps memory for a tensor alone. Smaller ones share a heap whose
# pages are used again, and there the advice costs more time than it saves.
LARGE = 2**25


class HugePages:
    """Asks Linux for pages of 2 MiB instead of 4 KiB while filling tensors is quicker for it.

    Memory is handed out a page at a time, when it is first written to, and each page interrupts
    the program. Where huge pages lie ready, fewer interruptions save time. In a virtual machine
    that gives free memory back to its host they do not, and each takes longer than the small pages
    in its place: so one tensor is filled either way, and the next as the quicker one was.
    https://docs.kernel.org/admin-guide/mm/transhuge.html
    """

    def __init__(self):
        self.speed = {}  # whether asked -> bytes a second, of the last tensor filled so

    @contextmanager
    def filling(self, tensor: torch.Tensor) -> Iterator[None]:
        """Around the first write to a tensor's memory. No value changes."""
        if not can_be_advised(tensor):
            yield
            return
        asks = len(self.speed) == 1 or self.speed.get(True, 0) > self.speed.get(False, 0)
        if asks:
            advise(tensor)
        start = time.perf_counter()
        yield
        self.speed[asks] = tensor.nbytes / (time.perf_counter() - start)


def can_be_advised(tensor: torch.Tensor) -> bool:
    """Whether a tensor is large, in one piece, and in the memory of a Linux."""
    large = tensor.nbytes >= LARGE and tensor.is_contiguous()
    return large and tensor.device.type == "cpu" and hasattr(mmap, "MADV_HUGEPAGE")


def advise(tensor: torch.Tensor) -> None:
    """Ask for huge pages for a tensor. A kernel that has none declines."""
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE  # madvise takes whole pages
    length = tensor.data_ptr() + tensor.nbytes - start
    arguments = ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE
    ctypes.CDLL(None).madvise(*arguments)
