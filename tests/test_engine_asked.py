"""What an engine is wrongly asked for is refused before any work, and says what is wanted."""

import numpy as np
import pytest
import torch
from tiny import save_tiny

from nanoserve.checks.generating_pieces import GREEDY
from nanoserve.cli import main
from nanoserve.engine.engine import Engine
from nanoserve.engine.llm import LLM

PROMPTS = "wanted a text, a list of ids, or a list of these"
PARAMS = "wanted SamplingParams"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    save_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def llm(path):
    return LLM(path, num_blocks=9)


@pytest.mark.parametrize(
    ("prompts", "params", "said"),
    [
        (None, GREEDY, f"the prompts are None: {PROMPTS}"),
        (3, GREEDY, f"the prompts are 3: {PROMPTS}"),
        ({"prompt": "hi"}, GREEDY, PROMPTS),
        (b"hi", GREEDY, PROMPTS),
        (torch.tensor([1, 2]), GREEDY, PROMPTS),
        ((ids for ids in [[1]]), GREEDY, PROMPTS),
        ([[1], None], GREEDY, "prompt 1: the prompt is None: wanted a list of token ids"),
        ([b"hi"], GREEDY, "prompt 0: the prompt is b'hi': wanted a list of token ids"),
        ([3.5], GREEDY, "prompt 0: the prompt is 3.5: wanted a list of token ids"),
        ([1, 2], {"temperature": 0}, f"params are {{'temperature': 0}}: {PARAMS}"),
        ([1, 2], "greedy", f"params are 'greedy': {PARAMS}"),
        ([1, 2], 0, f"params are 0: {PARAMS}"),
        ([[1], [2]], [GREEDY, {}], f"params are {{}}: {PARAMS}"),
    ],
)
def test_what_is_no_prompt_or_no_params(llm, prompts, params, said):
    with pytest.raises(ValueError) as refused:
        llm.generate(prompts, params)
    assert said in str(refused.value)
    assert not llm.engine.has_unfinished()


def test_ids_may_be_numpys(llm):
    (mine,) = llm.generate([*np.array([1, 2, 3])], GREEDY)
    (wanted,) = llm.generate([1, 2, 3], GREEDY)
    assert mine.token_ids == wanted.token_ids and mine.prompt_token_ids == [1, 2, 3]


@pytest.mark.parametrize("chats", [None, {"role": "user", "content": "x"}, "hello"])
def test_what_is_no_chat(llm, chats):
    with pytest.raises(ValueError, match="wanted a list of messages, or a list of such lists"):
        llm.chat(chats, GREEDY)


def test_what_a_request_cannot_be(llm):
    for prompt, params in ((None, GREEDY), ("hi", GREEDY), (5, GREEDY), ([1], {"top_k": 1})):
        with pytest.raises(ValueError, match=r"wanted (a list of token ids|SamplingParams)"):
            llm.engine.add_request("a", prompt, params)
    llm.engine.audit()


@pytest.mark.parametrize("model", [None, 3, {"a": 1}, torch.nn.Linear(2, 2)])
def test_what_is_no_model(model):
    with pytest.raises(ValueError, match="wanted a Llama, or a checkpoint's name or folder"):
        Engine(model)


@pytest.mark.parametrize("device", ["tpu", "CPU", None, 0, "mps", "cuda:x", ""])
def test_what_is_no_device(path, device):
    with pytest.raises(ValueError, match=r"device is .*, wanted cpu or cuda"):
        LLM(path, device=device)


def test_the_processor_by_its_other_names(path):
    for device in ("cpu", "cpu:0", torch.device("cpu")):
        assert type(LLM(path, device=device, num_blocks=9).engine) is Engine


def test_settings_that_are_none(path):
    with pytest.raises(TypeError, match=r"on cpu there is no setting max_model_len: there are bl"):
        LLM(path, max_model_len=100)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--device", "tpu"), "device is 'tpu', wanted cpu or cuda"),
        (("--num-blocks", "1000000000000000"), "GiB, and there is no room: give a smaller num_bl"),
    ],
)
@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("bench", "--checkpoint")])
def test_the_commands_say_so_in_a_line(path, command, arguments, said, capsys):
    name, *more = command
    where = [*more, str(path)] if name == "bench" else [str(path), *more]
    assert main([name, *where, *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line
