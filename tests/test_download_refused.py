"""What the hub refuses, or cannot give: each answer becomes one message that says what to do."""

import socket

import loopback_client
import pytest
from huggingface_hub import constants
from loopback import Hub
from loopback_client import BIG, NAME, TOKEN, failed, succeeded

from nanoserve.checkpoints import hub as our_hub
from nanoserve.cli import main

# pytest finds a fixture by its name in the module.
hub, hub_files, weights = loopback_client.hub, loopback_client.hub_files, loopback_client.weights

GATED = "Access to model is restricted and you are not in the authorized list."
PENDING = "Your request to access model is awaiting a review from the repo authors."
FINE = "Please enable access to public gated repositories in your fine-grained token settings."
UNKNOWN = "Invalid credentials in Authorization header"


@pytest.mark.parametrize(
    ("where", "fault", "parts"),
    [
        ("config.json", ("gate", 401, "GatedRepo", ""), ["not logged in", "hf auth login"]),
        ("config.json", ("gate", 403, "GatedRepo", GATED), ["no access", "Accept", "authorized"]),
        (
            "config.json",
            ("gate", 403, "GatedRepo", PENDING),
            ["awaiting an answer", "same command"],
        ),
        ("config.json", ("gate", 403, "", FINE), ["fine-grained", "permission", "hf auth login"]),
        ("info", ("gate", 401, "", UNKNOWN), ["does not know your access token", "hf auth login"]),
        ("info", ("gate", 401, "RepoNotFound", "Repository not found"), ["hf auth login"]),
        ("info", 404, ["404"]),
        (BIG, 404, ["404"]),
        ("info", 429, ["429", "wait"]),
        ("info", 500, ["fault of its own (500)", "later"]),
        (BIG, 500, ["fault of its own (500)"]),
        ("info", 418, ["418"]),
    ],
)
def test_a_refusal_says_what_to_do(hub, capsys, where, fault, parts):
    hub.faults[where] = [fault]
    page = f"{hub.address}/{our_hub.REPO}"
    err = failed(capsys, *parts, "nanoserve download` gets smollm2-135m")
    if isinstance(fault, tuple) and fault[3] != UNKNOWN:
        assert page in err


def test_a_refusal_that_quotes_a_token_is_not_repeated(hub, capsys):
    hub.faults["info"] = [("gate", 403, "GatedRepo", f"{GATED} {TOKEN}")]
    failed(capsys, "hf_...")


def test_no_token_on_the_command_line(weights):
    with pytest.raises(SystemExit) as stop:
        main(["download", NAME, "--token", TOKEN])
    assert stop.value.code == 2


def test_the_token_stays_with_the_hub(hub, hub_files, capsys):
    cdn = Hub(our_hub.REPO, dict(hub_files))
    hub.faults[BIG] = [("redirect", cdn.address)]
    succeeded(hub, capsys)
    assert [(name, token) for name, _, token in cdn.asked] == [(BIG, None)]
    cdn.close()


def test_no_network(hub, weights, capsys, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    err = failed(capsys, "out of reach", "Is there a network?")
    assert "On disk" not in err
    assert main(["download", "llama-3.2-1b-twin"]) == 0  # needs none
    capsys.readouterr()
    failed(capsys, "out of reach", "On disk: llama-3.2-1b-twin", "gets smollm2-135m")


def test_offline_mode_is_respected(hub, capsys, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    failed(capsys, "HF_HUB_OFFLINE is set", "gets smollm2-135m")
    assert hub.asked == []
