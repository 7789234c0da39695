"""`nanoserve bench`: its workloads are the ones named, its counts and texts are right."""

import json
import random
from collections import defaultdict

import pytest
import torch
from tiny import save_tiny

from nanoserve.bench.clock import said_before, time_engine
from nanoserve.bench.huggingface import disagreements, padded, time_theirs
from nanoserve.bench.workloads import Turn, chat, nano_vllm, workload
from nanoserve.cli import main
from nanoserve.engine.engine import Engine
from nanoserve.model import Llama


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a tiny model that knows enough tokens, and the model as HuggingFace has it."""
    path = tmp_path_factory.mktemp("made") / "tiny"
    return path, save_tiny(path, vocab_size=10_007)


def run(path, *arguments: str) -> int:
    return main(["bench", "--checkpoint", str(path), "--longest", "40", *arguments])


def test_nano_vllms_workload_is_the_one_of_its_bench():
    random.seed(0)  # as its bench.py does it
    prompts = [
        [random.randint(0, 10000) for _ in range(random.randint(100, 1024))] for _ in "a" * 256
    ]
    new = [random.randint(100, 1024) for _ in prompts]
    mine = nano_vllm(256, 0, 1024)
    assert [[*turn.ids] for (turn,) in mine] == prompts and [t.new for (t,) in mine] == new
    assert (sum(new), sum(map(len, prompts))) == (133_966, 142_827)  # FACTS, and its README
    assert nano_vllm(3, 0, 1024) == mine[:3] and nano_vllm(3, 1, 1024) != mine[:3]


def test_a_chat_begins_alike_and_goes_on():
    asked = chat(19, 0, 64)
    assert [len(turns) for turns in asked] == [8, 8, 3]
    assert len({turns[0].ids[:32] for turns in asked}) == 1
    two = (Turn((1, 2), 1), Turn((3,), 1), Turn((5,), 1))
    assert said_before(two, [[7], [8]]) == [1, 2, 7, 3, 8, 5]


def test_what_is_timed_is_huggingfaces_text(made, capsys):
    path, theirs = made
    asked = chat(11, 0, 64)
    ticks = []
    mine = time_engine(Engine(Llama.from_pretrained(path)), asked, 0.0, ticks.append)
    alone = time_theirs(theirs, asked, 1, ticks.append)
    together = time_theirs(theirs, asked, 2, ticks.append)
    assert mine.answers == alone.answers == together.answers
    wanted = [[turn.new for turn in turns] for turns in asked]
    assert [[len(ids) for ids in turns] for turns in mine.answers] == wanted
    assert mine.new_tokens == sum(map(sum, wanted)) and sum(ticks) == 3 * mine.new_tokens
    assert len(mine.first) == 11 and len(mine.gaps) == mine.new_tokens - 11
    assert mine.prompt_tokens == alone.prompt_tokens == together.prompt_tokens


def test_a_text_that_differs_is_told_with_its_margin(made):
    _, theirs = made
    asked = nano_vllm(2, 0, 40)
    right = time_theirs(theirs, asked, 1, lambda new: None)
    assert not [*disagreements(theirs, asked, right, right)]
    wrong = time_theirs(theirs, asked, 1, lambda new: None)
    wrong.answers[1][0][5] += 1
    ((where, margin),) = disagreements(theirs, asked, wrong, right)
    text = said_before(asked[1], []) + right.answers[1][0][:5]
    with torch.inference_mode():
        logits = theirs(torch.tensor([text])).logits[0, -1]
    told = logits.max() - logits[wrong.answers[1][0][5]]
    assert where == "conversation 1, turn 0, token 5"
    assert margin == pytest.approx((told / logits.abs().max()).item())


def test_the_command(made, capsys, tmp_path):
    path, _ = made
    file = tmp_path / "found.json"
    assert run(path, "--requests", "9", "--hf", "--json", str(file), "--max-num-seqs", "4") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "nanoserve", "HuggingFace, one by one", "HuggingFace, padded",
    ]  # fmt: skip
    found = json.loads(file.read_text())
    assert found["engine"] == {"max_num_seqs": 4} and not found["apart"]
    counts = {run["new_tokens"] for run in found["runs"].values()}
    assert counts == {sum(turn.new for turns in chat(9, 0, 40) for turn in turns)}
    assert run(path, "--requests", "2", "--workload", "nano-vllm") == 0


def test_texts_that_differ_are_an_error(made, capsys, monkeypatch):
    path, _ = made
    told, warm = defaultdict(int), workload("chat", 2, 1, 40, 10_007)

    def other(model, prompts, most):
        told["calls"] += 1  # the first warms up
        if told["calls"] == 1:
            assert prompts == [list(talk[0].ids) for talk in warm]
        answers = padded(model, prompts, most)
        if told["calls"] == 2:
            answers[0][0] = (answers[0][0] + 1) % 10_007
        return answers

    monkeypatch.setattr("nanoserve.bench.huggingface.padded", other)
    assert run(path, "--requests", "1", "--hf") == 1
    assert "another token" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--hf", "--temperature", "0.5"), "leave --temperature out"),
        (("--requests", "0"), "requests must be 1 or more, got 0"),
        (("--num-blocks", "2"), "take a smaller --longest, or a larger --num-blocks"),
        (("--block-size", "0"), "block_size must be 1 or more"),
        (("--json", "/no/folder/f"), "--json /no/folder/f cannot be written (No such file"),
        (("--json", "/"), "--json / cannot be written (Is a directory)"),
    ],
)
def test_what_cannot_be_is_refused_before_it_runs(made, arguments, said, capsys, monkeypatch):
    monkeypatch.setattr(Engine, "step", lambda self: pytest.fail("it ran"))
    assert run(made[0], *arguments) == 1
    assert said in capsys.readouterr().err


def test_a_run_that_is_refused_leaves_no_file_and_takes_none_away(made, tmp_path):
    new, old = tmp_path / "new.json", tmp_path / "old.json"
    old.write_text("kept")
    for file in (new, old):
        assert run(made[0], "--block-size", "0", "--json", str(file)) == 1
    assert not new.exists() and old.read_text() == "kept"


def test_a_small_vocabulary_is_refused():
    with pytest.raises(ValueError, match="the model knows 97 tokens"):
        workload("chat", 1, 0, 64, 97)


def test_the_help_has_an_example_and_says_how_long(capsys, monkeypatch):
    ran = []
    monkeypatch.setattr("nanoserve.commands.bench.run", ran.append)
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    said = capsys.readouterr().out
    example = next(line for line in said.splitlines() if line.startswith("example: "))
    program, *arguments = example.removeprefix("example: ").split()
    assert program == "nanoserve" and main(arguments) == 0
    (args,) = ran
    assert args.hf and (args.requests, args.longest) == (8, 64)
    asked = (chat(64, 0, 1024), nano_vllm(256, 0, 1024))  # what it does if nothing is given
    for turns, about in zip(asked, (2_200, 134_000), strict=True):
        assert f"{about:,} new tokens" in said.replace("\n", " ")
        assert sum(turn.new for talk in turns for turn in talk) == pytest.approx(about, rel=0.01)
