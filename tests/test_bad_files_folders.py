"""Folders that are none, bad indexes and configs: one clear error, the model as it was."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import broken
import pytest
import torch
from broken import NORM, header_of, index_changed, refused, write
from safetensors.torch import load_file
from tiny import save_tiny

from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.config import ConfigError, ModelConfig
from nanoserve.loader import load_weights, read_index
from nanoserve.model import Llama

# pytest finds a fixture by its name in the module.
good, one, shards, model = broken.good, broken.one, broken.shards, broken.model


def test_shard_missing(shards, model):
    file = sorted(shards.glob("model-*.safetensors"))[1]
    file.unlink()
    refused(model, shards, file.name, "cannot be read")


@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"])
def test_index_names_what_no_shard_has(shards, model, name):
    """HuggingFace takes the shards from the index, and from the shards what is in them."""
    first = sorted(shards.glob("model-*.safetensors"))[0].name
    index_changed(shards, name, first)
    assert load_weights(model, shards) == []


def test_index_forgets_a_relic(shards, model):
    first = sorted(shards.glob("model-*.safetensors"))[0]
    header, data = header_of(first)
    table = {"dtype": "I64", "shape": [0], "data_offsets": [len(data), len(data)]}
    write(first, header | {"model.rotary_emb.inv_freq": table}, data)
    assert load_weights(model, shards) == ["model.rotary_emb.inv_freq"]


def test_index_names_too_few_shards(shards, model):
    file = shards / "model.safetensors.index.json"
    where = json.loads(file.read_text())["weight_map"]
    kept = {name: shard for name, shard in where.items() if shard != where[NORM]}
    file.write_text(json.dumps({"weight_map": kept}))
    refused(model, shards, f"{NORM}: missing")


def test_index_leads_outside(shards, model, tmp_path):
    outside = tmp_path / "outside.safetensors"
    shutil.copy(sorted(shards.glob("model-*.safetensors"))[0], outside)
    for name in ("../outside.safetensors", str(outside), "a/../../x", "a/b", "", ".", ".."):
        index_changed(shards, NORM, name)
        refused(model, shards, "which is not a file of this folder", name[:20])


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


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_bad_index(shards, model, text):
    (shards / "model.safetensors.index.json").write_text(text)
    refused(model, shards, "index.json")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth"])
def test_pickles_are_never_opened(one, model, name):
    (one / "model.safetensors").rename(one / name)
    refused(model, one, name, "pickle")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "no",
        "[]",
        "{",
        '{"model_type": "llama"}',
        '{"head_dim": 2, "head_dim": 4}',
        '{"a":' * 10_000,
        '{"rope_scaling":' + "[" * 985 + "]" * 985 + "}",
        '{"vocab_size": 1' + "0" * 5000 + "}",
        "\xff",
    ],
    ids=lambda text: str(text)[:40],
)
def test_bad_config_json(one, model, text):
    file = one / "config.json"
    file.unlink() if text is None else file.write_text(text, "latin-1")
    refused(model, one, "config.json", error=ConfigError)


def test_a_byte_order_mark_is_not_in_the_way(one, model):
    file = one / "config.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load_weights(model, one) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", "-1"),
        ("vocab_size", "0"),
        ("vocab_size", "1e400"),
        ("vocab_size", "2147483648"),
        ("hidden_size", '"48"'),
        ("intermediate_size", "80.0"),
        ("num_attention_heads", "true"),
        ("num_hidden_layers", "100000"),
        ("num_key_value_heads", "3"),
        ("head_dim", "15"),
        ("rms_norm_eps", "NaN"),
        ("rms_norm_eps", "-1e-5"),
        ("rope_parameters", '"x"'),
        ("rope_parameters", '{"rope_theta": 1e400}'),
        ("tie_word_embeddings", "1"),
        ("hidden_act", '"\\u001b[31m\\n"'),
    ],
)
def test_a_field_that_cannot_be(one, model, field, value):
    file = one / "config.json"
    text, count = re.subn(
        rf'"{field}": (\{{.*?\}}|[^\n]*?)(?=,?\n  "|\n}})',
        lambda _: f'"{field}": {value}',
        file.read_text(),
        flags=re.DOTALL,
    )
    assert count == 1
    file.write_text(text)
    named = "rope_theta" if "theta" in value else field
    refused(model, one, f"config.json: {named} ", error=ConfigError)


def test_empty_folder_no_folder_and_a_file(tmp_path, one, model):
    refused(model, tmp_path / "nowhere", "config.json", error=ConfigError)
    (tmp_path / "file").write_text("")
    refused(model, tmp_path / "file", "config.json", error=ConfigError)
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(CheckpointError, match="not a folder"):
            read_index(path)
    (one / "model.safetensors").unlink()
    refused(model, one, "no model.safetensors")


@pytest.mark.parametrize("layers", [1, 3])
def test_more_layers_or_fewer_than_the_config_has(one, layers):
    config = json.loads((one / "config.json").read_text())
    (one / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    texts = ["layers.1.", "unexpected"] if layers == 1 else ["layers.2.", "missing"]
    with pytest.raises(CheckpointError) as error:
        Llama.from_pretrained(one)
    assert all(text in str(error.value) for text in texts)


def test_another_vocabulary_than_the_files(one):
    config = json.loads((one / "config.json").read_text())
    (one / "config.json").write_text(json.dumps(config | {"vocab_size": 96}))
    with pytest.raises(CheckpointError, match=r"embed_tokens.*\[97, 48\], not \[96, 48\]"):
        Llama.from_pretrained(one)
