"""The judge under what a reader, a sitecustomize or another notebook has told torch."""

import subprocess
import sys
from pathlib import Path

import pytest
import shell
import torch
from tiny import save_tiny

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {
    "dtype bfloat16": "torch.set_default_dtype(torch.bfloat16)",
    "dtype float64": "torch.set_default_dtype(torch.float64)",
    "device meta": "torch.set_default_device('meta')",
}
JUDGE = """
import torch
{setting}
from nanoserve.comparison import compare
from nanoserve.model import Llama
from nanoserve.reference import Reference
checkpoint = {checkpoint!r}
reference, exact = Reference(checkpoint), Reference(checkpoint, torch.float64)
model = Llama.from_pretrained(checkpoint)
with torch.inference_mode():
    states = model.hidden_states(reference.input_ids, reference.positions)
    ours = model.logits(states[-1])
compare("logits", ours, reference.outputs["logits"])
assert (ours.double() - exact.outputs["logits"]).abs().max() < 1e-3
torch.save({{n: x for n, x in reference.outputs.items()}}, {out!r})
"""


def judged(setting: str, checkpoint: Path, out: Path, anew: bool = False) -> dict:
    """What the reference records with torch so set, having passed our model.

    In a process that has the libraries loaded, or `anew`: torch is set before they are.
    """
    source = JUDGE.format(setting=setting, checkpoint=str(checkpoint), out=str(out))
    if anew:
        command = [sys.executable, "-c", source]
        wrong = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stderr
    else:
        _, wrong = shell.run([source])
    assert not wrong, wrong[-1500:]
    return torch.load(out)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A checkpoint, and what is recorded of it with nothing set."""
    folder = tmp_path_factory.mktemp("judge")
    save_tiny(folder / "tiny", max_position_embeddings=512)
    return folder / "tiny", judged("", folder / "tiny", folder / "plain.pt")


@pytest.mark.parametrize("name", SETTINGS)
def test_nothing_changes(name, plain, tmp_path):
    checkpoint, wanted = plain
    found = judged(SETTINGS[name], checkpoint, tmp_path / "found.pt", anew="meta" in name)
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert found[key].dtype == tensor.dtype and torch.equal(found[key], tensor), key
