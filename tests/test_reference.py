"""The judge, judged: Reference in surroundings that are not its own.

Its other bugs in tests/mutants/reference.toml are held against Day 2's comparison cell.
"""

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from judging import DEFAULTS, complaint, defaults, works
from tiny import save_tiny
from tokenizers import Tokenizer, models, pre_tokenizers

from nanoserve.reference import Reference, prompt

CONFIG = SimpleNamespace(vocab_size=5, max_position_embeddings=512)


def save_tokenizer(folder: str, **vocabulary: int) -> Tokenizer:
    """A tokenizer in `folder` that knows a few words."""
    tokenizer = Tokenizer(models.WordLevel({"[?]": 0, "the": 1} | vocabulary, unk_token="[?]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(f"{folder}/tokenizer.json")
    return tokenizer


def test_nothing_depends_on_torchs_defaults():
    with tempfile.TemporaryDirectory() as folder:
        save_tiny(Path(folder))
        usual = Reference(folder)
        for dtype, device in DEFAULTS:
            with defaults(dtype, device):
                ref = works(Reference, folder)
                made = works(ref.rope, ref.positions)
                assert torch.get_default_dtype() == dtype
            assert ref.outputs.keys() == usual.outputs.keys()
            for name, tensor in ref.outputs.items():
                assert torch.equal(tensor, usual.outputs[name]), name
            assert torch.equal(ref.input_ids, usual.input_ids)
            assert torch.equal(made[0], usual.outputs["cos"])


def test_a_record_is_of_what_was_given_then():
    ids, places = torch.tensor([[3, 5, 7]]), torch.tensor([[0, 1, 2]])
    with tempfile.TemporaryDirectory() as folder:
        save_tiny(Path(folder))
        ref = Reference(folder, input_ids=ids, positions=places)
        exact = Reference(folder, torch.float64, input_ids=ids, positions=places)
    ids += 1
    places += 1
    assert ref.input_ids.tolist() == [[3, 5, 7]] and ref.positions.tolist() == [[0, 1, 2]]
    assert torch.equal(exact.rope(exact.positions)[0], exact.outputs["cos"])


def test_the_file_of_the_tokenizer_does_not_cut_or_fill_the_prompt():
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = save_tokenizer(folder)
        ids, positions = prompt(Path(folder), CONFIG)
        assert ids.shape == positions.shape and ids.shape[1] > 20
        tokenizer.enable_truncation(4)
        tokenizer.save(f"{folder}/tokenizer.json")
        assert torch.equal(prompt(Path(folder), CONFIG)[0], ids)
        tokenizer.no_truncation()
        tokenizer.enable_padding(length=64)
        tokenizer.save(f"{folder}/tokenizer.json")
        assert torch.equal(prompt(Path(folder), CONFIG)[0], ids)


def test_a_tokenizer_that_does_not_fit_is_named():
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        for text in ("", "{}", json.dumps({"model": {"type": "none"}})):
            file.write_text(text, "utf-8")
            assert str(file) in complaint(prompt, Path(folder), CONFIG, error=ValueError)
        save_tokenizer(folder, a=5)
        assert "vocab_size 5" in complaint(prompt, Path(folder), CONFIG, error=ValueError)
