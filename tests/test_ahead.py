"""An engine that plans ahead, and the runner of a GPU: token for token the plain engine."""

import random
from dataclasses import replace

import pytest
import torch

import nanoserve.kernels  # noqa: F401, which finds Triton

pytest.importorskip("triton")

from tiny import save_tiny

from nanoserve.engine.ahead import PENDING, AheadEngine
from nanoserve.engine.desk import new_scheduler
from nanoserve.engine.engine import Engine
from nanoserve.engine.gpu import GPUEngine
from nanoserve.engine.llm import LLM
from nanoserve.engine.plan import Plan
from nanoserve.engine.pool import KVPool
from nanoserve.engine.runner import Runner
from nanoserve.kernels.fused import FusedLlama
from nanoserve.kernels.runner import Due, GPURunner, plain
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Late(Runner):
    """The plain runner as one that does not wait: the host gets ids a step late."""

    can_lag = True

    def __init__(self, model, pool):
        super().__init__(model, pool)
        self.newest = {}

    def launch(self, plan):
        shares = [replace(s, ids=tuple(self.known(s, i) for i in s.ids)) for s in plan.shares]
        ids, logprobs = self.run(Plan(tuple(shares)))
        for share, token in zip(plan.sampling, ids, strict=True):
            self.newest[share.request] = token
        return Due(torch.tensor(ids), None, logprobs)

    def known(self, share, token):
        """A token that the host may not know yet."""
        return self.newest[share.request] if token == PENDING else token


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Llama:
    path = tmp_path_factory.mktemp("made")
    save_tiny(path, num_hidden_layers=1)
    return Llama.from_pretrained(path).to(DEVICE)


def ahead(model, runner, num_blocks, size=4, rows=3, budget=9, caching=True) -> AheadEngine:
    """An engine that plans ahead, with this runner."""
    engine = AheadEngine.__new__(AheadEngine)
    engine.model, engine.tokenizer, engine.eos_ids = model, None, (3,)
    pool = KVPool(model.config, num_blocks + 1, size, device=DEVICE)
    if runner is GPURunner:
        runner = GPURunner(FusedLlama(model, 64), pool, rows, 64)
    else:
        runner = runner(model, pool)
    engine.furnish(runner, new_scheduler(caching, num_blocks, size, rows, budget), 64)
    engine.begin()
    return engine


def asked(seed: int, count: int, special: bool) -> list:
    """Prompts that begin alike now and then, and params; with `special`, also those with rules."""
    drawn = random.Random(seed)
    same, found = [drawn.randrange(97) for _ in range(9)], []
    for i in range(count):
        ids = same[: drawn.choice((0, 5, 9))] + [
            drawn.randrange(97) for _ in range(drawn.randint(1, 6))
        ]
        more = {"top_k": 5} if drawn.random() < 0.3 else {"frequency_penalty": 0.5, "logprobs": 2}
        rules = more if special and drawn.random() < 0.5 else {}
        temperature = drawn.choice((0, 0.8, 1.5))
        params = SamplingParams(
            temperature=temperature, max_tokens=drawn.randint(1, 7), seed=i, **rules
        )
        found.append((f"r{i}", ids, params))
    return found


def note(told: dict, outputs: list) -> None:
    for output in outputs:
        told.setdefault(output.request_id, []).append(output)


def play(engine, requests, aborts=()) -> dict:
    """All of them, some a few steps later; by name what each step told, until it ended."""
    told, step, coming = {}, 0, [*requests]
    while coming or engine.has_unfinished():
        for _ in range(2 if step % 3 == 0 else 0):
            if coming:
                engine.add_request(*coming.pop(0))
        for name in [name for when, name in aborts if when == step]:
            engine.abort(name)
        note(told, engine.step())
        if step % 4 == 0:
            engine.audit()
        step += 1
    note(told, engine.step())  # of what was aborted last
    assert engine.num_free_blocks == engine.scheduler.blocks.num_blocks
    return told


def check(mine: dict, wanted: dict) -> None:
    """Each request was told the same ids, one more each time, and the same end."""
    assert mine.keys() == wanted.keys()
    for name, outputs in wanted.items():
        ends, theirs = mine[name][-1], outputs[-1]
        assert (ends.token_ids, ends.finish_reason) == (theirs.token_ids, theirs.finish_reason)
        assert [o.token_ids for o in mine[name]] == [o.token_ids for o in outputs]
        assert [o.finished for o in mine[name]] == [o.finished for o in outputs]
        assert PENDING not in ends.token_ids


@pytest.mark.parametrize("num_blocks", [40, 7])
@pytest.mark.parametrize("caching", [True, False])
def test_a_lag_changes_nothing_that_is_told(model, num_blocks, caching):
    for seed in range(6):
        requests = asked(seed, 8, special=False)
        settings = {"block_size": 4, "num_blocks": num_blocks, "max_num_seqs": 3}
        plainly = Engine(model, **settings, max_num_batched_tokens=9, enable_prefix_caching=caching)
        plainly.eos_ids = (3,)
        check(
            play(ahead(model, Late, num_blocks, caching=caching), requests), play(plainly, requests)
        )


def test_an_abort_at_any_step_leaves_nothing_behind(model):
    for when in range(0, 12):
        requests = asked(when, 5, special=False)
        told = play(ahead(model, Late, 9), requests, [(when, "r1"), (when, "r3")])
        for name, *_ in requests:
            if name in told:
                assert [o.finished for o in told[name]] == [False] * (len(told[name]) - 1) + [True]
                assert PENDING not in told[name][-1].token_ids


@pytest.mark.parametrize(("num_blocks", "special"), [(30, False), (7, False), (30, True)])
def test_the_runner_of_a_gpu_is_the_plain_one(model, num_blocks, special):
    requests = asked(7, 5, special)
    plainly = Engine(model, block_size=4, num_blocks=num_blocks, max_num_seqs=3,
                     max_num_batched_tokens=9)  # fmt: skip
    plainly.eos_ids = (3,)
    check(play(ahead(model, GPURunner, num_blocks), requests), play(plainly, requests))


def test_what_is_plain():
    assert plain(SamplingParams(temperature=0.5, seed=1, max_tokens=3, stop_token_ids=(1,)))
    for rule in (
        {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.1}, {"min_tokens": 1}, {"logprobs": 0},
        {"repetition_penalty": 1.1}, {"presence_penalty": 0.1}, {"frequency_penalty": -0.1},
    ):  # fmt: skip
        assert not plain(SamplingParams(max_tokens=2, **rule)), rule


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_told_of(model):
    with pytest.raises(ValueError, match=r"device is 'cuda', and torch .* sees no GPU here"):
        LLM("smollm2-135m", device="cuda")
    with pytest.raises(ValueError, match="wanted cpu or cuda"):
        GPUEngine(model, device="meta")
    with pytest.raises(ValueError, match="not on a GPU"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: True)
        GPUEngine(model)
    with pytest.raises(TypeError, match="dtype"):  # the plain engine is in the model's
        LLM("smollm2-135m", dtype="bfloat16")
