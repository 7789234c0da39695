"""Checkpoints as strangers have them: links, leftovers, many shards. They load, or hear why not."""

import os
import shutil
import sys
from pathlib import Path

import broken
import pytest
import torch
from broken import NORM, header_of, index_changed, refused, write
from safetensors.torch import load_file, save_file
from tiny import save_tiny

from nanoserve import loader
from nanoserve.checks.loader_refusals import check_refusals
from nanoserve.config import ModelConfig
from nanoserve.loader import load_weights
from nanoserve.model import Llama

# pytest finds a fixture by its name in the module.
good, one, shards, model = broken.good, broken.one, broken.shards, broken.model


@pytest.mark.parametrize("whole", [False, True])
def test_files_that_are_links_to_anywhere_load(good, tmp_path, model, whole):
    """A shared disk; a mounted volume, where the link leads to another; the hub's own cache."""
    source = good / ("one" if whole else "shards")
    volume, blobs = tmp_path / "volume", tmp_path / "elsewhere" / "blobs"
    (volume / "..2026").mkdir(parents=True)
    (volume / "..data").symlink_to("..2026")
    blobs.mkdir(parents=True)
    (tmp_path / "blobs").symlink_to(blobs)
    snapshot, mine = tmp_path / "snapshots" / "abc", tmp_path / "mine"
    snapshot.mkdir(parents=True)
    mine.mkdir()
    for i, file in enumerate(source.iterdir()):
        shutil.copy(file, blobs / str(i))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(i))
        shutil.copy(file, volume / "..data" / file.name)
        (volume / file.name).symlink_to(Path("..data") / file.name)
        (mine / file.name).symlink_to(file)
    for folder in (snapshot, volume, mine):
        assert load_weights(model, folder) == []


def test_a_stale_index_and_shards_beside_a_whole_file(one, shards, model):
    """They are an earlier save's, and HuggingFace does not read them either."""
    for file in shards.glob("model*"):
        shutil.copy(file, one)
    for file in one.glob("model-*.safetensors"):
        header, data = header_of(file)
        write(file, header, bytes(len(data)))
    assert load_weights(model, one) == []
    assert torch.equal(model.norm.weight, load_file(one / "model.safetensors")[NORM])


def test_a_tensor_in_two_shards(shards, model):
    first = sorted(shards.glob("model-*.safetensors"))[0]
    shutil.copy(first, shards / "again.safetensors")
    index_changed(shards, "anything", "again.safetensors")
    refused(model, shards, "and in another file")


def test_an_adapter_is_not_passed_over(one, model):
    """HuggingFace adds it to the weights, where PEFT is installed."""
    (one / "adapter_config.json").write_text("{}")
    refused(model, one, "adapter_config.json", "merge it")


@pytest.mark.skipif(sys.platform == "win32", reason="asks for the limit of open files")
def test_more_shards_than_files_may_be_open(tmp_path):
    import resource

    theirs = save_tiny(tmp_path, shard="1KB", num_hidden_layers=8)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 60
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 8, hard))
    try:
        mine = Llama.from_pretrained(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert torch.equal(mine.norm.weight, theirs.model.norm.weight)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_folder_whose_name_is_no_text(one, model):
    """The library cannot open it, and the message says so and can be printed."""
    folder = one.rename(os.fsdecode(os.fsencode(one.parent) + b"/caf\xe9"))
    refused(model, folder, "not valid UTF-8").encode()


def test_whatever_torch_is_set_to(one, good):
    """Its default dtype and device are of new tensors; the model's parameters are there already."""
    wanted = load_file(good / "one" / "model.safetensors")[NORM]
    model = Llama(ModelConfig.from_pretrained(one))
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            assert load_weights(model, one) == []
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(model.norm.weight.detach(), wanted)


def test_a_note_of_a_megabyte_in_the_header(one, model):
    """As some trainers write their log there: the file is whole."""
    header, data = header_of(one / "model.safetensors")
    header["__metadata__"] = {"format": "pt", "log": "x" * 1_200_000}
    write(one / "model.safetensors", header, data)
    assert load_weights(model, one) == []


def test_parameters_saved_as_nothing(one, model):
    """ZeRO-3 without gathering writes shape [0] for each of them."""
    header, _ = header_of(one / "model.safetensors")
    nothing = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    write(one / "model.safetensors", {n: nothing for n in header if n[0] != "_"}, b"")
    refused(model, one, "model.embed_tokens.weight: shape [0], not [97, 48]", "more")


def test_a_days_findings_are_told_together(monkeypatch):
    monkeypatch.setattr(loader, "wrong_tensors", lambda config, index: [])
    with pytest.raises(AssertionError) as told:
        check_refusals()
    lines = str(told.value).split("\n- ")
    assert len(lines) > 10 and lines[0].endswith(f"{len(lines) - 1} found wrong")
    assert all("must" in line for line in lines[1:])


WRAPPED = {  # what torch.compile, DDP, PEFT, FSDP and others leave of "model.layers.0."
    "torch.compile": lambda name: "_orig_mod." + name,
    "DDP": lambda name: "module." + name,
    "PEFT": lambda name: "base_model.model." + name,
    "FSDP": lambda name: "_fsdp_wrapped_module." + name.replace("layers.", "layers.X."),
    "a base model": lambda name: name.removeprefix("model."),
    "a multimodal model": lambda name: "language_model." + name,
}


@pytest.mark.parametrize("rename", WRAPPED.values(), ids=WRAPPED)
def test_names_as_wrappers_leave_them(one, model, rename):
    file = one / "model.safetensors"
    held = {rename(name): tensor for name, tensor in load_file(file).items()}
    save_file(held, file, metadata={"format": "pt"})
    refused(model, one, "missing", "unexpected", rename("model.layers.0.mlp.up_proj.weight"))
