"""`nanoserve generate` as a user meets it: streamed, repeatable, refused before work, ended."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanoserve.checkpoints import DEFAULT, TWIN
from nanoserve.cli import main
from nanoserve.model import Llama

ROOT = Path(__file__).resolve().parent.parent
TEXT = "The capital of France is"
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
QUESTION = (
    f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
    "What is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.fixture
def said(capsys):
    """What the command prints, and what it tells beside that."""

    def run(*arguments, code=0):
        assert main(["generate", *arguments, "--checkpoint", DEFAULT]) == code
        return capsys.readouterr()

    return run


def test_greedy_goes_on_from_the_text(said):
    out, err = said(TEXT, "--temperature", "0", "--max-tokens", "4")
    assert out.startswith(" Paris.\n") and "4 tokens, the first after" in err and "a second" in err


def test_a_seed_repeats_the_text_and_another_one_does_not(said):
    one, again, other = (
        said(TEXT, "--max-tokens", "12", "--seed", seed).out for seed in ("5", "5", "6")
    )
    assert one == again != other


def test_it_ends_where_the_model_ends_unless_told_not_to(said):
    ended = said(QUESTION, "--temperature", "0", "--max-tokens", "12")
    assert ended.out == "The capital of France is Paris.\n" and "8 tokens" in ended.err
    on = said(QUESTION, "--temperature", "0", "--max-tokens", "12", "--ignore-eos")
    assert "12 tokens" in on.err and on.out.startswith(ended.out.rstrip("\n"))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--temperature", "-1"], ["temperature", "-1"]),
        (["--top-p", "0"], ["top_p", "0"]),
        (["--max-tokens", "0"], ["max_tokens", "0"]),
        (["--max-tokens", "8"], ["min_tokens 9", "max_tokens 8"]),
    ],
)
def test_bad_values_are_refused_before_the_model_is_loaded(arguments, parts, capsys, monkeypatch):
    monkeypatch.setattr(Llama, "from_pretrained", lambda *_: pytest.fail("loaded"))
    more = ["--min-tokens", "9"] if arguments[1] == "8" else []
    assert main(["generate", TEXT, *arguments, *more]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and all(part in err for part in parts)


def test_a_checkpoint_without_a_tokenizer_is_named(capsys):
    assert main(["generate", TEXT, "--checkpoint", TWIN]) == 1
    assert "has no tokenizer.json" in capsys.readouterr().err


def test_a_prompt_past_the_context_is_refused(said):
    assert "past the context of 8192" in said("a " * 9000, code=1).err


def test_it_multiplies_by_the_faster_library(said, monkeypatch):
    asked = []
    monkeypatch.setattr("nanoserve.cpu.make_fast", asked.append)
    said(TEXT, "--max-tokens", "1")
    assert [type(model) for model in asked] == [Llama]


def test_ctrl_c_ends_it_with_what_there_is():
    command = [sys.executable, "-m", "nanoserve", "generate", TEXT, "--max-tokens", "4000"]
    command += ["--ignore-eos"]  # a drawn text may end before the signal comes
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*command, "--checkpoint", DEFAULT], cwd=ROOT, **pipes)
    first = process.stdout.read(1)  # it streams: the first letter comes long before the end
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert first and process.returncode == 130 and out.endswith(b"\n")
    assert b"interrupted" in err and b"Traceback" not in err
