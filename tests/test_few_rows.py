"""Few rows on the CPU where numba is absent, compiles nothing, or has nowhere to keep it."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import linear

from nanoserve.checks.products_switch import THERE
from nanoserve.config import ModelConfig
from nanoserve.cpu import fewrows, loops, make_fast
from nanoserve.model import Llama
from nanoserve.products import onednn_linear

SIZES = {
    "vocab_size": 16,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e4,
    "tie_word_embeddings": True,
    "model_type": "llama",
}


@pytest.fixture
def model():
    return Llama(ModelConfig.from_dict(SIZES)).requires_grad_(False)


def test_without_numba_there_is_onednn_alone(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    make_fast(model)
    assert model.product is (onednn_linear if THERE else linear)
    make_fast(model, on=False)
    assert model.product is linear


def test_nothing_is_switched_where_numba_compiles_nothing(model, monkeypatch):
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    assert not fewrows.use_few_rows(model)
    assert not any(isinstance(block, fewrows.FewRowsBlock) for block in model.blocks)


def test_loops_are_compiled_where_they_cannot_be_kept(monkeypatch):
    monkeypatch.setattr("numba.core.caching.FunctionCache._impl_class._locator_classes", [])
    spec = importlib.util.spec_from_file_location("loops_anew", loops.__file__)
    anew = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(anew)
    out = np.empty((1, 2), np.float32)
    anew.product(np.ones((1, 3), np.float32), np.ones((2, 3), np.float32), out)
    assert out.tolist() == [[3, 3]]


def test_threads_that_come_or_go_change_nothing():
    head, x, weight = fewrows.FewRowsHead(linear), torch.ones(2, 8), torch.arange(40.0).view(5, 8)
    before = torch.get_num_threads()
    try:
        for threads in (1, 64, 2):
            torch.set_num_threads(threads)
            assert head(x, weight).equal(linear(x, weight))
    finally:
        torch.set_num_threads(before)


THREADS = """
import os
import torch
from torch.nn.functional import linear
from nanoserve.cpu.fewrows import FewRowsHead
head, x = FewRowsHead(linear), torch.ones(2, 8)
torch.set_num_threads(1)  # more would stop torch itself in a fork
head(x, x)
assert torch.get_num_threads() == 1
child = os.fork() if hasattr(os, "fork") else None
if child == 0:
    os._exit(7 if head(x, x).equal(linear(x, x)) else 1)
assert child is None or os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


def test_torch_keeps_its_number_of_threads_and_a_fork_goes_on_without_loops():
    environment = os.environ | {"NUMBA_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", THREADS], check=True, env=environment)
