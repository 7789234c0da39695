"""An engine that plans ahead, and the runner of a GPU: token for token the plain engine."""

import itertools

import pytest
import torch

import nanoserve.kernels  # noqa: F401, which finds Triton

pytest.importorskip("triton")

from nanoserve.checks.kernels_ahead import ahead, asked, beside, check_told, play
from nanoserve.checks.kernels_company import (
    MODES,
    check_aborts,
    check_endings,
    check_lag,
    check_only_ended,
)
from nanoserve.checks.kernels_records import check_records
from nanoserve.checks.kernels_runner import check_runner
from nanoserve.checks.kernels_steps import made
from nanoserve.engine.gpu import GPUEngine
from nanoserve.engine.llm import LLM
from nanoserve.kernels.runner import GPURunner
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GREEDY = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)


@pytest.fixture(scope="module")
def model() -> Llama:
    return made(num_hidden_layers=1)[1]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("mode", MODES)
def test_a_lag_changes_nothing_that_is_told(model, mode):
    for seed in range(4):
        requests = asked(seed, 8, special=seed % 2 == 1)
        mine = play(ahead(model, **MODES[mode]), requests)
        check_told(mode, mine, play(beside(model, **MODES[mode]), requests))


@pytest.mark.parametrize(
    "check", [check_aborts, check_endings, check_lag, check_only_ended, check_records, check_runner]
)
def test_what_the_comparison_of_day_24_asks(model, check):
    check(model)


@pytest.mark.parametrize(("mode", "special"), [("roomy", True), ("in a cramped pool", False)])
def test_the_runner_of_a_gpu_is_the_plain_one(model, mode, special):
    requests = asked(7, 4, special)
    mine = play(ahead(model, GPURunner, **MODES[mode]), requests)
    check_told(mode, mine, play(beside(model, **MODES[mode]), requests))


@pytest.mark.parametrize("mode", MODES)
def test_llm_takes_a_step_that_tells_nothing_yet_for_work(model, mode):
    llm = LLM.__new__(LLM)
    llm.numbers = itertools.count()
    requests = asked(3, 8, special=True)
    for llm.engine in (ahead(model, **MODES[mode]), ahead(model, GPURunner, **MODES[mode])):
        outputs = llm.answers([ids for _, ids, _ in requests], [p for *_, p in requests])
        assert all(output.finish_reason in ("stop", "length") for output in outputs)


def test_a_token_that_was_never_chosen_is_sent(model):
    """The only one of a prompt, and the one behind what a cache holds: in no row of the card."""
    engine, plainly = ahead(model, GPURunner), beside(model)
    for name, prompt in (("short", [7]), ("cold", [1, 2, 3, 4, 5]), ("warm", [1, 2, 3, 4, 5])):
        mine, wanted = (play(each, [(name, prompt, GREEDY)]) for each in (engine, plainly))
        assert mine[name][-1].num_cached_tokens == (4 if name == "warm" else 0)
        check_told(name, mine, wanted)


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_told_of(model):
    with pytest.raises(ValueError, match=r"device is 'cuda', and torch .* sees no GPU here"):
        LLM("smollm2-135m", device="cuda")
    with pytest.raises(ValueError, match="wanted cpu or cuda"):
        GPUEngine(model, device="meta")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: True)
        patch.setattr("torch.cuda.device_count", lambda: 2)
        for device, said in (
            ("cuda", "not on a GPU"),
            ("cuda:3", "'cuda:3', and there are 2 GPUs"),
        ):
            with pytest.raises(ValueError, match=said):
                GPUEngine(model, device=device)
    with pytest.raises(TypeError, match="on cuda there is no setting blocks: there are dtype, bl"):
        LLM("smollm2-135m", device="cuda", blocks=3)
    with pytest.raises(TypeError, match="dtype"):  # the plain engine is in the model's
        LLM("smollm2-135m", dtype="bfloat16")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"device": "cuda:x"}, "device is 'cuda:x', wanted cpu or cuda"),
        ({"device": "cpu"}, "device is 'cpu', and this engine is for cuda"),
        ({"gpu_memory_utilization": "most"}, "over 0, and 1 at most, got 'most'"),
        ({"gpu_memory_utilization": 0}, "over 0, and 1 at most, got 0"),
    ],
)
def test_a_device_or_a_share_that_is_none_is_refused_before_the_model_is_read(
    settings, said, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("nanoserve.engine.gpu.opened", lambda model: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=said):
        GPUEngine("a name", **settings)
