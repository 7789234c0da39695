"""Linux is asked for pages of 2 MiB, and only while a load is quicker for it."""

import mmap

import pytest
import torch

from nanoserve import pages
from nanoserve.checkpoints import TWIN, checkpoint_path
from nanoserve.model import Llama
from nanoserve.pages import LARGE, HugePages, advise

linux_only = pytest.mark.skipif(
    not hasattr(mmap, "MADV_HUGEPAGE"), reason="only Linux takes advice on huge pages"
)


def advised(tensor: torch.Tensor) -> bool:
    """Whether the mapping that holds the tensor carries the advice: "hg" among its flags."""
    address, within = tensor.data_ptr() + tensor.nbytes // 2, False
    with open("/proc/self/smaps") as smaps:
        for line in smaps:
            word = line.split(maxsplit=1)[0]
            if not word.endswith(":"):
                start, end = (int(part, 16) for part in word.split("-"))
                within = start <= address < end
            elif within and word == "VmFlags:":
                return "hg" in line.split()
    raise AssertionError(f"{address:#x} is not mapped")


@linux_only
def test_only_the_tensor_asked_for_is_advised():
    asked, other = (torch.empty(64, 2**20) for _ in range(2))
    advise(asked)
    assert advised(asked)
    assert not advised(other)


@linux_only
@pytest.mark.parametrize(
    "seconds, asked",
    [
        ([4, 1, 1, 1], [False, True, True, True]),  # huge pages lie ready
        ([1, 4, 1, 1], [False, True, False, False]),  # they have to be fetched
        ([2, 1, 4, 2, 2], [False, True, True, False, False]),  # at first a few lie ready
        ([2, 4, 8, 1], [False, True, False, True]),  # small ones have become the slower
    ],
)
def test_the_quicker_way_is_kept(monkeypatch, seconds, asked):
    now, way = [0.0], []
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    huge = HugePages()
    for took in seconds:
        tensor = torch.empty(64, 2**20)
        with huge.filling(tensor):
            now[0] += took
        way.append(advised(tensor))
    assert way == asked


@linux_only
def test_loading_asks_for_large_parameters(monkeypatch):
    tried = []
    monkeypatch.setattr(pages, "advise", lambda tensor: tried.append(tensor.nbytes))
    Llama.from_pretrained(checkpoint_path(TWIN))
    assert tried and min(tried) >= LARGE


@pytest.mark.parametrize(
    "tensor",
    [
        torch.empty(0),
        torch.ones(5),
        torch.ones(2**12, 2**12).T,
        torch.empty(2**24, device="meta"),
    ],
    ids=["empty", "small", "transposed", "without memory"],
)
def test_what_cannot_be_advised_is_left_alone(monkeypatch, tensor):
    monkeypatch.setattr(pages, "advise", None)  # a call would fail
    huge = HugePages()
    for _ in range(3):
        with huge.filling(tensor):
            pass
    assert not huge.speed


def test_a_system_without_the_advice_is_left_alone(monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    monkeypatch.setattr(pages, "advise", None)
    huge = HugePages()
    for _ in range(3):
        with huge.filling(torch.empty(2**24)):
            pass
