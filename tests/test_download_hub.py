"""llama-3.2-1b from a hub on 127.0.0.1, with the real client: whole, cut, resumed, false."""

import shutil
from collections import namedtuple

import loopback_client
import pytest
import torch
from loopback_client import BIG, NAME, TOKEN, failed, succeeded
from safetensors.torch import save

from nanoserve.cli import main

# pytest finds a fixture by its name in the module.
hub, hub_files, weights = loopback_client.hub, loopback_client.hub_files, loopback_client.weights


def test_takes_what_is_wanted_and_nothing_else(hub, weights, capsys, tmp_path):
    succeeded(hub, capsys)
    names = {"config.json", "tokenizer.json", "tokenizer_config.json", BIG, ".nanoserve.json"}
    assert {path.name for path in (weights / NAME).iterdir()} == names
    assert {path.name for path in weights.iterdir()} == {NAME, f".{NAME}.lock"}
    assert not list(tmp_path.rglob("outside*"))
    assert {name for name, _, _ in hub.asked} == names - {".nanoserve.json"} | {"info"}
    assert all(token == f"Bearer {TOKEN}" for _, _, token in hub.asked)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]
    # Complete: the hub is not even asked.
    asked = len(hub.asked)
    succeeded(hub, capsys)
    assert len(hub.asked) == asked
    assert main(["download", "--verify", NAME]) == 0
    assert main(["download", "--list"]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.strip().startswith(f"{NAME} "))
    assert "complete" in line and "2.6 MB" in line and "Llama 3.2 Community" in line


def test_a_lost_connection_resumes_by_itself(hub, capsys):
    hub.faults[BIG] = ["cut"]
    succeeded(hub, capsys)
    first, second = hub.ranges(BIG)
    assert first is None and int(second.removeprefix("bytes=")[:-1]) > 1_000_000


def test_the_next_run_resumes(hub, weights, capsys):
    hub.faults[BIG] = ["reset"]
    failed(capsys, "was cut", "kept", "goes on from there")
    assert main(["download", "--list"]) == 0
    assert "begun, 1." in capsys.readouterr().out
    succeeded(hub, capsys)
    first, second = hub.ranges(BIG)
    assert first is None and int(second.removeprefix("bytes=")[:-1]) > 1_000_000
    assert len(hub.ranges("config.json")) == 1  # whole already: not fetched again


def test_a_part_of_another_revision_is_not_used(hub, weights, capsys):
    hub.faults[BIG] = ["reset"]
    failed(capsys, "was cut")
    hub.commit = "d" * 40
    hub.files[BIG] = save({"model.norm.weight": torch.rand(600_000)})
    succeeded(hub, capsys)
    assert hub.ranges(BIG) == [None, None]
    assert not list((weights / NAME).glob("*.part"))


@pytest.mark.parametrize("fault", ["stall", "whole"])
def test_a_server_that_stalls_or_ignores_ranges(hub, capsys, fault):
    hub.faults[BIG] = ["stall"] if fault == "stall" else ["cut", "whole"]
    succeeded(hub, capsys)


@pytest.mark.parametrize(
    ("fault", "part"), [("short", "and the hub says 256"), ("corrupt", "another hash")]
)
def test_wrong_length_and_wrong_hash(hub, capsys, fault, part):
    hub.faults[BIG] = [fault]
    arrived = BIG if fault == "corrupt" else "arrived"
    failed(capsys, arrived, part, "thrown away", "same command", "a portal")
    succeeded(hub, capsys)
    assert hub.ranges(BIG) == [None, None]


def test_a_small_file_with_the_wrong_hash(hub, capsys):
    hub.faults["config.json"] = ["corrupt"]
    failed(capsys, "config.json arrived with another hash")


def test_the_disk_is_looked_at_first(hub, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 2_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    failed(capsys, "2.6 MB are needed", "2.0 MB are free", "NANOSERVE_WEIGHTS")
    assert [name for name, _, _ in hub.asked] == ["info"]


def test_a_repository_without_safetensors(hub, capsys):
    del hub.files[BIG]
    failed(capsys, "holds no config.json or no safetensors")
