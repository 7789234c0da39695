"""`nanoserve chat` through a pipe, and its conversation; test_chat_terminal.py has the terminal."""

import io
import sys
from pathlib import Path

import pytest
import torch
from tiny import save_tiny

from nanoserve.chat import Conversation, talk
from nanoserve.checkpoints import DEFAULT, TWIN
from nanoserve.checks.text_made import save
from nanoserve.cli import main
from nanoserve.generate import generate
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams
from nanoserve.text import Tokenizer

QUESTION = "What is the capital of France?"
PARIS = "The capital of France is Paris."


@pytest.fixture
def said(capsys, monkeypatch):
    """What the command prints, and tells beside that, when these lines come through a pipe."""

    def run(lines, *arguments, checkpoint=DEFAULT, code=0):
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        assert main(["chat", "--temperature", "0", "--checkpoint", checkpoint, *arguments]) == code
        return capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A made model with a context of 192, and a tokenizer of its own."""
    folder = save(tmp_path_factory.mktemp("chat") / "made", "byte level")
    words = len(Tokenizer.from_pretrained(folder).library.get_vocab())
    save_tiny(folder, vocab_size=words, max_position_embeddings=192)
    return folder


def conversation(folder: Path, system: str = "", **params) -> Conversation:
    """A greedy one, with answers of at most 9 tokens."""
    params = SamplingParams(**{"temperature": 0, "max_tokens": 9} | params)
    return Conversation(
        Llama.from_pretrained(folder), Tokenizer.from_pretrained(folder), params, system
    )


def test_a_pipe_gets_answers_and_nothing_else(said):
    out, err = said(f"{QUESTION}\n\n  \n/exit\nnever read\n", "--max-tokens", "20")
    assert out == f"{PARIS}\n" and err == ""


def test_a_system_message_and_a_stop_text_are_heeded(said):
    out, err = said(QUESTION, "--system", "You are terse.", "--stop", " Paris", "--stop", "x")
    assert " is" in out and "Paris" not in out and "<|" not in out and err == ""


def test_a_cut_answer_says_so(said):
    out, err = said(QUESTION, "--max-tokens", "3")
    assert out == "The capital of\n" and "3 tokens: --max-tokens allows more" in err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--top-p", "0"], ["top_p", "0"]),
        (["--max-tokens", "0"], ["max_tokens"]),
        (["--stop", ""], ["stop"]),
        (["--checkpoint", TWIN], ["has no tokenizer.json"]),
    ],
)
def test_what_is_wrong_is_refused_before_the_model_is_loaded(arguments, parts, capsys, monkeypatch):
    monkeypatch.setattr(Llama, "from_pretrained", lambda *_: pytest.fail("loaded"))
    assert main(["chat", *arguments]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and all(part in err for part in parts)


def test_a_checkpoint_without_a_template_is_named(made, capsys, monkeypatch):
    settings = made / "tokenizer_config.json"
    kept = settings.read_text("utf-8")
    settings.unlink()
    try:
        assert main(["chat", "--checkpoint", str(made)]) == 1
    finally:
        settings.write_text(kept, "utf-8")
    assert "has no chat template" in capsys.readouterr().err


def test_history_is_what_was_said_and_a_line_of_it_is_read_once(made, monkeypatch):
    talking = conversation(made, "Be brief.")
    sizes, forward = [], Llama.forward

    def counted(model, ids, *rest):
        sizes.append(ids.shape[1])
        return forward(model, ids, *rest)

    monkeypatch.setattr(Llama, "forward", counted)
    first = "".join(talking.answer("Hi"))
    assert [m["role"] for m in talking.messages] == ["system", "user", "assistant"]
    assert talking.messages[2]["content"] == first
    read = len(talking.tokenizer.chat(talking.messages[:2]))
    assert sizes[0] == read and set(sizes[1:]) == {1}
    sizes.clear()
    ids = talking.tokenizer.chat([*talking.messages, {"role": "user", "content": "More"}])
    second = "".join(talking.answer("More"))
    assert sizes[0] < len(ids) - read + 3  # the first question is in the cache
    fresh = generate(talking.model, ids, SamplingParams(temperature=0, max_tokens=9))
    assert second == talking.tokenizer.decode(fresh.token_ids)


def test_another_conversation_in_the_same_cache_is_as_in_a_new_one(made):
    talking = conversation(made)
    ["".join(talking.answer(text)) for text in ("Hi", "More")]
    talking.renew()
    assert talking.messages == []
    assert "".join(talking.answer("Why?")) == "".join(conversation(made).answer("Why?"))


def test_a_full_context_is_said_and_the_conversation_goes_on(made, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"Hi\n{'long ' * 90}\n/new\nHi\n"))
    talk(conversation(made, max_tokens=400))
    out, err = capsys.readouterr()
    first, again = out.split("\n")[0], out.rstrip("\n").split("\n")[-1]
    assert first and again and err.count("the context is full") == 2
    assert "and the context holds 192: /new begins another one" in err


def test_an_unknown_command_is_no_question(made, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("/help\n"))
    talking = conversation(made)
    talk(talking)
    assert "there is no command /help: /new and /exit are all" in capsys.readouterr().err
    assert talking.messages == []


def test_an_answer_that_is_left_is_kept_as_far_as_it_came(made):
    talking = conversation(made)
    whole = "".join(conversation(made).answer("Hi"))
    answer = talking.answer("Hi")
    part = next(answer) + next(answer) + next(answer)
    answer.close()
    assert talking.messages[-1] == {"role": "assistant", "content": part}
    assert whole.startswith(part) and len(part) < len(whole)
    again = "".join(talking.answer("Go on"))
    asked = talking.tokenizer.chat(talking.messages[:-1])
    wanted = generate(talking.model, asked, talking.params)
    assert again == talking.tokenizer.decode(wanted.token_ids)


def test_nothing_of_it_needs_a_gradient(made):
    talking = conversation(made)
    with torch.enable_grad():
        "".join(talking.answer("Hi"))
    assert not talking.cache.k.requires_grad
