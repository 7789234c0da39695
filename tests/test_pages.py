"""A loaded model's memory is what Linux was asked for: pages of 2 MiB."""

import mmap

import pytest
import torch

from nanoserve.checkpoints import TWIN, checkpoint_path
from nanoserve.model import Llama
from nanoserve.pages import LARGE, ask_for_huge_pages

linux_only = pytest.mark.skipif(
    not hasattr(mmap, "MADV_HUGEPAGE"), reason="only Linux takes advice on huge pages"
)


def advised(address: int) -> bool:
    """Whether the mapping that holds `address` carries the advice: "hg" among its flags."""
    within = False
    with open("/proc/self/smaps") as smaps:
        for line in smaps:
            word = line.split(maxsplit=1)[0]
            if not word.endswith(":"):
                start, end = (int(part, 16) for part in word.split("-"))
                within = start <= address < end
            elif within and word == "VmFlags:":
                return "hg" in line.split()
    raise AssertionError(f"{address:#x} is not mapped")


def middle(tensor: torch.Tensor) -> int:
    return tensor.data_ptr() + tensor.nbytes // 2


@linux_only
def test_only_the_tensor_asked_for_is_advised():
    asked, other = (torch.empty(64, 2**20) for _ in range(2))
    ask_for_huge_pages(asked)
    assert advised(middle(asked))
    assert not advised(middle(other))


@linux_only
def test_loading_asks_for_every_large_parameter():
    model = Llama.from_pretrained(checkpoint_path(TWIN), num_blocks=1)
    large = [p for p in model.parameters() if p.nbytes >= LARGE]
    assert len(large) >= 3  # gate, up and down
    assert all(advised(middle(p)) for p in large)


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
def test_what_cannot_be_advised_is_left_alone(tensor):
    before = tensor.clone()
    ask_for_huge_pages(tensor)
    assert tensor.is_meta or torch.equal(tensor, before)


def test_a_system_without_the_advice_is_left_alone(monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    monkeypatch.setattr("ctypes.CDLL", None)  # a call would fail
    ask_for_huge_pages(torch.empty(2**24))
