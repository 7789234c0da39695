"""LLM and Engine beside what Day 16's comparison holds: imports, defaults, another judge."""

import inspect
import itertools
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from tiny import save_tiny

from nanoserve.checkpoints import DEFAULT, weights_dir
from nanoserve.checks.engine_aborts import check_aborts, check_audit
from nanoserve.checks.generating import their_model
from nanoserve.checks.generating_pieces import GREEDY
from nanoserve.checks.serving_mix import mix_of
from nanoserve.checks.their_batches import their_batch
from nanoserve.engine import desk
from nanoserve.engine.engine import Engine
from nanoserve.engine.llm import LLM
from nanoserve.engine.plan import Plan
from nanoserve.engine.request import RequestOutput
from nanoserve.engine.scheduler import Scheduler
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams

ENGINE = Path(desk.__file__).parent


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    save_tiny(folder)
    return folder


def test_the_package_stays_light_and_names_the_engine():
    code = (
        "import sys, nanoserve; assert 'torch' not in sys.modules; "
        "from nanoserve import LLM, SamplingParams; "
        "assert LLM.__module__ == 'nanoserve.engine.llm'; "
        "assert 'transformers' not in sys.modules and 'jinja2' not in sys.modules\n"
        "try: nanoserve.Llm\nexcept AttributeError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no attribute 'Llm'" in run.stdout


def test_public_names_are_those_of_the_design():
    given = inspect.signature(Engine).parameters
    assert {name: p.default for name, p in list(given.items())[1:]} == {
        "block_size": 16,
        "num_blocks": None,
        "max_num_seqs": 16,
        "max_num_batched_tokens": 512,
        "enable_prefix_caching": True,
    }
    names = "request_id prompt_token_ids token_ids text finished finish_reason logprobs"
    assert [f.name for f in fields(RequestOutput)] == [*names.split(), "num_cached_tokens"]


def test_files_of_the_engine_stay_small():
    lines = {path.name: len(path.read_text("utf-8").splitlines()) for path in ENGINE.glob("*.py")}
    assert max(lines.values()) < 200 and lines["scheduler.py"] < 150


def test_the_scheduler_and_what_it_stands_on_know_no_tensor():
    code = "import sys, nanoserve.engine.blocks; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
    for name in ("request", "plan", "scheduler", "blocks", "audit", "prefix"):
        assert "torch" not in (ENGINE / f"{name}.py").read_text("utf-8")


def test_the_pool_takes_what_fits_and_no_more_than_can_be_filled(made, monkeypatch):
    model = Llama.from_pretrained(made)
    assert Engine(model).num_free_blocks == 16 * 512 // 16  # sixteen whole contexts
    assert Engine(model, block_size=3, max_num_seqs=2).num_free_blocks == 2 * 171
    monkeypatch.setattr(
        desk, "POOL_BYTES", 100 * 16 * model.config.kv_cache_bytes_per_token(torch.float32)
    )
    assert Engine(model).num_free_blocks == 100
    monkeypatch.setattr(desk, "POOL_BYTES", 1)
    assert Engine(model).num_free_blocks == 1


def test_a_half_precision_model_has_a_pool_of_its_kind(made):
    engine = Engine(Llama.from_pretrained(made, dtype=torch.bfloat16), num_blocks=8)
    assert engine.runner.pool.k.dtype == torch.bfloat16
    engine.add_request("a", [1, 2, 3], GREEDY)
    while engine.has_unfinished():
        (output,) = engine.step()
    assert len(output.token_ids) == GREEDY.max_tokens


def test_a_checkpoint_without_a_tokenizer_takes_ids(made):
    llm = LLM(made, num_blocks=8)
    assert len(llm.generate([1, 2, 3], GREEDY)[0].token_ids) == 16
    for act in (
        lambda: llm.generate("text", GREEDY),
        lambda: llm.chat([{"role": "user", "content": "x"}]),
    ):
        with pytest.raises(ValueError, match="tokenizer"):
            act()


def test_a_step_that_does_nothing_is_an_error(made, monkeypatch):
    """It can never end, where a scheduler plans nothing while requests wait or run."""
    llm = LLM(made)
    plain, steps = Scheduler.schedule, itertools.count()

    def schedule(self):
        step = next(steps)
        assert step < 9, "it goes on for ever"
        return plain(self) if step < 2 else Plan(())

    monkeypatch.setattr(Scheduler, "schedule", schedule)
    with pytest.raises(RuntimeError, match="a step did nothing, and 2 requests have not ended"):
        llm.generate([[1, 2, 3], [4]], GREEDY)
    assert next(steps) == 3 and not llm.engine.has_unfinished()
    llm.engine.audit()


def test_the_prefix_cache_is_a_switch_and_a_salt_is_a_text(made):
    model = Llama.from_pretrained(made)
    for wrong in (None, 1, "yes"):
        with pytest.raises(ValueError, match="enable_prefix_caching is no bool"):
            Engine(model, enable_prefix_caching=wrong)
    for caching, cached in ((True, 32), (False, 0)):
        engine = Engine(model, num_blocks=9, enable_prefix_caching=caching)
        for _ in range(2):
            engine.add_request("a", [1] * 40, GREEDY, cache_salt="mine")
            while engine.has_unfinished():
                (output,) = engine.step()
        assert output.num_cached_tokens == cached
        for wrong in ("", 7):
            with pytest.raises(ValueError, match="cache_salt"):
                engine.add_request("b", [1], GREEDY, cache_salt=wrong)
        assert not engine.has_unfinished()


def test_aborts_at_every_moment_and_falsified_books(made):
    model = Llama.from_pretrained(made)
    check_aborts(model)
    check_audit(model)


def test_a_pass_that_fails_leaves_the_books_sound_and_can_be_tried_again(made):
    model = Llama.from_pretrained(made)
    engine, alone = Engine(model, num_blocks=8), Engine(model, num_blocks=8)
    for each in (engine, alone):
        each.add_request("a", [1, 2, 3], SamplingParams(temperature=0, max_tokens=5))
    logits, calls = engine.runner.logits, []

    def fail_every_second(plan):
        calls.append(plan)
        rows = logits(plan)
        if len(calls) % 2:
            raise RuntimeError("as if memory ran out")
        return rows

    engine.runner.logits = fail_every_second
    outputs = []
    while engine.has_unfinished():
        try:
            outputs += engine.step()
        except RuntimeError:
            engine.audit()
    assert len(outputs) == 5 and len(calls) == 10
    while alone.has_unfinished():
        (last,) = alone.step()
    assert outputs[-1] == last


@pytest.mark.skipif(not (weights_dir() / DEFAULT).is_dir(), reason="make download")
def test_a_mix_of_texts_is_what_their_continuous_batching_writes():
    path = weights_dir() / DEFAULT
    theirs = their_model(path)
    prompts = [prompt for prompt, _ in mix_of(path, theirs.config.vocab_size)]
    wanted = their_batch(theirs, prompts, 6)
    params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    mine = LLM(path, num_blocks=64).generate(prompts, params)
    assert [output.token_ids for output in mine] == wanted
