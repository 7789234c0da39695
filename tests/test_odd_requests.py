"""Requests and checkpoints that are odd, and cost nobody else an answer."""

import json
import time
from dataclasses import replace

import pytest
from tiny import save_tiny

from nanoserve.checks.text_made import save
from nanoserve.engine.llm import LLM
from nanoserve.generate import generate
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams
from nanoserve.text import Tokenizer

GREEDY = SamplingParams(temperature=0, max_tokens=6)
VOCAB = 97


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    save_tiny(folder, eos_token_id=96)
    return folder


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_request_that_may_draw_nothing_is_refused_alone(made, temperature):
    """Let in, it would fail a step, and with it all who are in that step."""
    llm = LLM(made)
    for stops in (tuple(range(VOCAB)), tuple(range(VOCAB - 1))):  # the last is the checkpoint's
        params = SamplingParams(temperature=temperature, stop_token_ids=stops, min_tokens=1)
        llm.engine.add_request("good", [1, 2, 3], GREEDY)
        with pytest.raises(ValueError, match="all 97 tokens are stop ids"):
            llm.engine.add_request("bad", [1, 2, 3], params)
        with pytest.raises(ValueError, match="all 97 tokens are stop ids"):
            generate(llm.engine.model, [1, 2, 3], params)
        while llm.engine.has_unfinished():
            told = llm.engine.step()
        assert len(told[-1].token_ids) == 6 or told[-1].finish_reason == "stop"
    one = SamplingParams(stop_token_ids=range_without(41), min_tokens=3, max_tokens=3)
    assert llm.generate([[1, 2]], one)[0].token_ids == [41, 41, 41]
    none = SamplingParams(stop_token_ids=tuple(range(VOCAB)), max_tokens=3)
    assert len(llm.generate([[1, 2]], none)[0].token_ids) == 1


def range_without(token: int) -> tuple[int, ...]:
    """All ids but one, and some that the vocabulary does not have."""
    return tuple(i for i in range(VOCAB + 9) if i != token)


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_the_least_and_the_greatest_penalty_can_be_drawn_from(made, factor):
    """Below, a score over it is infinite, and the probabilities are NaN: a step that fails."""
    llm = LLM(made)
    for temperature in (0, 1e-5, 1, 1e30):
        params = SamplingParams(
            temperature=temperature, repetition_penalty=factor, max_tokens=4, ignore_eos=True
        )
        assert len(llm.generate([list(range(VOCAB))], params)[0].token_ids) == 4


@pytest.mark.parametrize("eos", [-1, [-1], [96, -1]])
def test_an_end_below_0_is_none(made, tmp_path, eos):
    """Some checkpoints have -1 where a model has no end. HuggingFace warns, and goes on."""
    for file in made.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for name in ("config.json", "generation_config.json"):
        file = tmp_path / name
        values = json.loads(file.read_text()) | {"eos_token_id": eos}
        file.write_text(json.dumps(values))
    params = SamplingParams(temperature=0, max_tokens=4, min_tokens=2)
    ids = generate(Llama.from_pretrained(tmp_path), [5, 6], params).token_ids
    assert LLM(tmp_path).generate([[5, 6]], params)[0].token_ids == ids


def test_a_message_of_spaces_takes_no_longer_than_one_of_letters(tmp_path):
    """A pattern that looks again from each space would take minutes."""
    tokenizer = Tokenizer.from_pretrained(save(tmp_path, "byte level"))
    start = time.process_time()
    for said in (" " * 200_000, " " * 100_000 + "</think>" + "\n" * 100_000):
        text = tokenizer.written([{"role": "user", "content": f"a{said}z"}], True)
        assert text.count("z<|eot_id|>") == 0 and text.count(f"z{tokenizer.prefix}<|eot_id|>") == 1
    assert time.process_time() - start < 10


def test_a_stop_text_that_names_a_special_token_ends_at_it(tmp_path):
    """No text shows the token, so a search in texts would not find it."""
    save(tmp_path, "byte level")
    save_tiny(tmp_path, vocab_size=600, eos_token_id=None)
    llm = LLM(tmp_path)
    special = llm.tokenizer.special
    for seed in range(30):
        free = SamplingParams(temperature=1e6, max_tokens=100, seed=seed)
        ids = llm.generate([[5, 6]], free)[0].token_ids
        if found := [i for i in ids if i in special]:
            break
    name = llm.tokenizer.decode(found[:1], control=True)
    out = llm.generate([[5, 6]], replace(free, stop=("zzzz", name)))[0]
    assert out.token_ids == ids[: ids.index(found[0]) + 1]
    assert out.finish_reason == "stop" and name not in out.text
