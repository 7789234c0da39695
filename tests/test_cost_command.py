"""`nanoserve cost` prints what nanoserve.cost predicts of the machine that it measured."""

from dataclasses import replace

import pytest

from nanoserve import forecast as module
from nanoserve.checkpoints import DEFAULT, TWIN, checkpoint_path
from nanoserve.cli import main
from nanoserve.config import ModelConfig
from nanoserve.cost import Machine, step_cost
from nanoserve.cpu.fewrows import MOST
from nanoserve.products import onednn_linear

SLOW, FAST, LOOPS = Machine(10e9, 50e9), Machine(20e9, 100e9), Machine(48e9, 100e9)


@pytest.fixture
def measured(monkeypatch):
    """A machine that needs no measuring: torch's product is half as fast as oneDNN's.

    The loops read 24e9 bytes a second, and are given twice as many.
    """
    found = {None: SLOW, onednn_linear: FAST}
    monkeypatch.setattr(module, "read_bandwidth", lambda: 25e9)
    monkeypatch.setattr(module, "measure", lambda p=None: found.get(p, LOOPS))


def told(capsys, *arguments) -> list[str]:
    """The lines that the command prints."""
    assert main(["cost", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("there", [True, False])
def test_it_prints_what_is_predicted(there, measured, capsys, monkeypatch):
    monkeypatch.setattr(module, "suits", lambda: there)
    lines = told(capsys, "--checkpoint", DEFAULT, "--context", "100")
    assert "25.0 GB/s" in lines[0] and "10.0 GB/s" in lines[1] and "50.0 GFLOP/s" in lines[1]
    assert any("oneDNN" in line for line in lines) == there
    config = ModelConfig.from_pretrained(checkpoint_path(DEFAULT))
    for line, batch in zip(lines[-4:], (1, 4, 16, 64), strict=True):
        few = batch <= MOST
        parts = step_cost(config, batch=batch, context=100, weight_bits=16 if few else 32)
        loops = replace(LOOPS, bandwidth=24e9)
        seconds = (loops if few else FAST if there else SLOW).seconds(parts)
        wanted = [batch, seconds * 1e3, 1 / seconds, batch / seconds]
        assert [float(word) for word in line.split()] == pytest.approx(wanted, abs=0.051)


def test_any_checkpoint_will_do(measured, capsys):
    assert any(line.startswith(f"{TWIN} in fp32") for line in told(capsys, "--checkpoint", TWIN))


def test_what_makes_no_step_is_refused_before_it_measures(capsys, monkeypatch):
    monkeypatch.setattr(module, "read_bandwidth", lambda: pytest.fail("measured"))
    assert main(["cost", "--checkpoint", DEFAULT, "--context", "0"]) == 1
    assert "context must be an int from 1" in capsys.readouterr().err
