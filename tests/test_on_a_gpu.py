"""What only a card can tell of the engine on a GPU; without one there is nothing to ask."""

import json

import pytest
import torch
from tiny import save_tiny

from nanoserve.cli import main
from nanoserve.engine.gpu import GPUEngine
from nanoserve.engine.llm import LLM
from nanoserve.sampling import SamplingParams

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
SIZES = {"vocab_size": 10_007, "hidden_size": 64, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a tiny model that knows enough tokens for the workloads."""
    path = tmp_path_factory.mktemp("made") / "tiny"
    save_tiny(path, **SIZES)
    return path


def test_what_the_card_has_not_is_refused(made):
    count = torch.cuda.device_count()
    for settings, said in (
        ({"device": f"cuda:{count + 7}"}, rf"'cuda:{count + 7}', and there are {count} GPUs"),
        ({"num_blocks": 10**9}, r"pool of \d+ blocks of 16 tokens takes .* give a smaller"),
        ({"gpu_memory_utilization": 0.001}, r"GiB free, and a step of 8192 tokens takes"),
        ({"dtype": "int8"}, "dtype is 'int8', wanted one of bfloat16, float16, float32"),
    ):
        with pytest.raises(ValueError, match=said):
            GPUEngine(made, **settings)
    engine = GPUEngine(made, num_blocks=8, max_num_seqs=2)  # and the card is as good as before
    engine.add_request("a", [1, 2, 3], SamplingParams(temperature=0, max_tokens=4))
    while engine.has_unfinished():
        engine.step()
    engine.audit()


def test_the_card_writes_what_the_plain_engine_writes(made):
    prompts = [[1 + i * k % 10_000 for k in range(1, 8 * i)] for i in range(1, 6)]
    greedy = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    settings = {"num_blocks": 64, "max_num_seqs": 4}
    plain = LLM(made, **settings).generate(prompts, greedy)
    card = LLM(made, device="cuda", dtype="float32", **settings).generate(prompts, greedy)
    assert [o.token_ids for o in card] == [o.token_ids for o in plain]


def test_bench_on_the_card(made, tmp_path, capsys):
    file = tmp_path / "b.json"
    small = ["--checkpoint", str(made), "--requests", "6", "--longest", "24", "--json", str(file)]
    assert main(["bench", "--device", "cuda", *small]) == 0
    assert "nanoserve: " in capsys.readouterr().out
    told = json.loads(file.read_text("utf-8"))
    assert told["runs"]["nanoserve"]["new_tokens"] > 0
    assert main(["bench", "--device", "cuda:99", *small]) != 0
    assert "there are" in capsys.readouterr().err
    assert main(["bench", "--device", "cuda", "--dtype", "float32", "--hf", *small]) == 0
