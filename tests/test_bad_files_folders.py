"""Folders that are none, bad indexes and configs: one clear error, the model as it was."""

import json
import re
import shutil

import broken
import pytest
from broken import NORM, header_of, index_changed, refused, write

from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.config import ConfigError
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
