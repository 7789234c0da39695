"""Damaged and hostile checkpoints: one clear error, the model as it was."""

import json
import os
import shutil
import struct
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import save_tiny

from nanoserve.config import ConfigError, ModelConfig
from nanoserve.headers import CheckpointError, read_header
from nanoserve.loader import load_weights, read_index
from nanoserve.model import Llama


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A sound checkpoint in one file, and one in shards."""
    folder = tmp_path_factory.mktemp("good")
    save_tiny(folder / "one")
    save_tiny(folder / "shards", shard="30KB")
    return folder


@pytest.fixture
def one(good, tmp_path):
    return Path(shutil.copytree(good / "one", tmp_path / "one"))


@pytest.fixture
def shards(good, tmp_path):
    return Path(shutil.copytree(good / "shards", tmp_path / "shards"))


@pytest.fixture
def model(good):
    model = Llama(ModelConfig.from_pretrained(good / "one"))
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 7.0)
    return model


def refused(model, folder, *texts, error=CheckpointError):
    """Loading fails with all of `texts` in at most 20 lines, and changes no byte of the model."""
    with pytest.raises(error) as caught:
        load_weights(model, folder)
    message = str(caught.value)
    for text in texts:
        assert text in message, message
    assert len(message.splitlines()) <= 20
    assert all((parameter == 7.0).all() for parameter in model.parameters())
    return message


def header_of(file: Path) -> tuple[dict, bytes]:
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(file: Path, header, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


UP = "model.layers.1.mlp.up_proj.weight"
NORM = "model.norm.weight"


def changed(folder: Path, name: str, **fields) -> None:
    """Change one header entry of a one-file checkpoint."""
    header, data = header_of(folder / "model.safetensors")
    header[name] |= fields
    write(folder / "model.safetensors", header, data)


def test_the_good_ones_load(one, shards, model):
    assert load_weights(model, one) == []
    first = [parameter.clone() for parameter in model.parameters()]
    assert load_weights(model, shards) == []
    assert all(map(torch.equal, first, model.parameters()))


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_cut_short(one, model, keep):
    file = one / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(model, one, "model.safetensors")


@pytest.mark.parametrize("length", [0, 1, 10**6, 2**40, 2**63, 2**64 - 1])
def test_absurd_header_length(one, model, length):
    file = one / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length) + file.read_bytes()[8:])
    refused(model, one, "model.safetensors", str(length))


@pytest.mark.parametrize(
    "text",
    [
        b"not json",
        b"[]",
        b"3",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a": NaN',
        b"{}" + b" " * 7 + b"x",
    ],
)
def test_header_is_not_a_json_object(one, model, text):
    write(one / "model.safetensors", text, b"")
    refused(model, one, "model.safetensors", "header")


def test_key_there_twice(one, model):
    header, data = header_of(one / "model.safetensors")
    text = json.dumps(header).encode()
    entry = json.dumps({NORM: header[NORM]}).encode()
    write(one / "model.safetensors", text[:-1] + b", " + entry[1:], data)
    refused(model, one, NORM, "twice")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"dtype": "F128"}, "F128"),
        ({"dtype": ["F32"]}, "dtype"),
        ({"dtype": None}, "dtype"),
        ({"dtype": "I32"}, "I32"),
        ({"shape": [48, 80]}, "[48, 80]"),
        ({"shape": [80, 49]}, "[80, 49]"),
        ({"shape": [-80, -48]}, "shape"),
        ({"shape": [2**62, 2**62]}, "takes"),
        ({"shape": "x"}, "shape"),
        ({"shape": [80.0, 48.0]}, "shape"),
        ({"data_offsets": [0, 10**12]}, "not within"),
        ({"data_offsets": [80, 0]}, "not within"),
        ({"data_offsets": [-8, 8]}, "data_offsets"),
        ({"data_offsets": [0]}, "data_offsets"),
        ({"data_offsets": None}, "data_offsets"),
        ({"data_offsets": [0, 80 * 48 * 4]}, "overlap"),
    ],
    ids=str,
)
def test_entry_that_cannot_be(one, model, fields, text):
    changed(one, UP, **fields)
    assert text in refused(model, one, UP if text != "overlap" else "overlap")


def test_gap_in_the_data(one, model):
    header, data = header_of(one / "model.safetensors")
    del header[NORM]
    write(one / "model.safetensors", header, data)
    refused(model, one, NORM)


def test_missing_unexpected_and_misshapen_are_told_together(one, model):
    header, data = header_of(one / "model.safetensors")
    header["model.layers.9.mlp.up_proj.weight"] = header.pop(UP)
    header["model.layers.0.mlp.down_proj.weight"]["shape"] = [80, 48]
    write(one / "model.safetensors", header, data)
    refused(model, one, UP, "missing", "model.layers.9", "unexpected", "[80, 48]", "[48, 80]")


def test_long_lists_are_cut(one, model):
    header, data = header_of(one / "model.safetensors")
    renamed = {f"x{i}": entry for i, entry in enumerate(header.values()) if "dtype" in entry}
    write(one / "model.safetensors", renamed, data)
    assert "more" in refused(model, one, "unexpected")


def test_shard_missing(shards, model):
    file = sorted(shards.glob("model-*.safetensors"))[1]
    file.unlink()
    refused(model, shards, file.name, "cannot be read")


def index_changed(folder: Path, name: str, file) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][name] = file
    path.write_text(json.dumps(index))


def test_index_names_a_tensor_that_its_shard_lacks(shards, model):
    first = sorted(shards.glob("model-*.safetensors"))[0].name
    index_changed(shards, "model.layers.0.self_attn.extra.weight", first)
    refused(model, shards, "model.layers.0.self_attn.extra.weight", first)


def test_index_leads_outside(shards, model, tmp_path):
    outside = tmp_path / "outside.safetensors"
    shutil.copy(sorted(shards.glob("model-*.safetensors"))[0], outside)
    (shards / "link.safetensors").symlink_to(outside)
    for name in ("../outside.safetensors", str(outside), "link.safetensors", "a/../../x", "", "."):
        index_changed(shards, NORM, name)
        refused(model, shards, "outside" if not name else name[:20])


def test_hub_cache_links_are_inside(good, tmp_path, model):
    """The hub's own cache: snapshots/REV/FILE is a link to blobs/HASH."""
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for i, file in enumerate((good / "shards").iterdir()):
        shutil.copy(file, blobs / str(i))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(i))
    assert load_weights(model, snapshot) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_bad_index(shards, model, text):
    (shards / "model.safetensors.index.json").write_text(text)
    refused(model, shards, "index.json")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth"])
def test_pickles_are_never_opened(one, model, name):
    (one / "model.safetensors").rename(one / name)
    refused(model, one, name, "pickle")


@pytest.mark.parametrize("text", [None, "", "no", "[]", "{", '{"model_type": "llama"}', "\xff"])
def test_bad_config_json(one, model, text):
    file = one / "config.json"
    file.unlink() if text is None else file.write_text(text, "latin-1")
    refused(model, one, "config.json", error=ConfigError)


def test_empty_folder_no_folder_and_a_file(tmp_path, one, model):
    refused(model, tmp_path / "nowhere", "config.json", error=ConfigError)
    (tmp_path / "file").write_text("")
    refused(model, tmp_path / "file", "config.json", error=ConfigError)
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(CheckpointError, match="not a folder"):
            read_index(path)
    (one / "model.safetensors").unlink()
    refused(model, one, "no model.safetensors")


def test_no_read_permission(one, model):
    if os.geteuid() == 0:  # root reads everything: a folder in the file's place fails to open too
        (one / "model.safetensors").unlink()
        (one / "model.safetensors.index.json").mkdir()
    else:
        (one / "model.safetensors").chmod(0)
    refused(model, one, "cannot be read")


def test_tied_head_that_differs(one, model):
    header, data = header_of(one / "model.safetensors")
    embed = header["model.embed_tokens.weight"]
    start, end = embed["data_offsets"]
    header["lm_head.weight"] = embed | {"data_offsets": [len(data), len(data) + end - start]}
    write(one / "model.safetensors", header, data + data[start:end])
    assert load_weights(model, one) == ["lm_head.weight"]
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 7.0)
    write(one / "model.safetensors", header, data + bytes(end - start))
    refused(model, one, "lm_head.weight", "differ")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite_is_a_warning_that_names_the_tensor(one, model, value):
    header, data = header_of(one / "model.safetensors")
    start, _ = header[UP]["data_offsets"]
    data = data[:start] + struct.pack("<f", value) + data[start + 4 :]
    write(one / "model.safetensors", header, data)
    with pytest.warns(UserWarning, match=UP):
        load_weights(model, one)


def test_large_but_finite_weights_are_no_warning(one, model):
    header, data = header_of(one / "model.safetensors")
    start, _ = header[UP]["data_offsets"]
    data = data[:start] + struct.pack("<f", 1e30) + data[start + 4 :]
    write(one / "model.safetensors", header, data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(model, one)


def test_parameters_without_memory_or_without_a_tensor(one, good):
    with torch.device("meta"):
        meta = Llama(ModelConfig.from_pretrained(good / "one"))
    with pytest.raises(CheckpointError, match="to_empty"):
        load_weights(meta, one)
    model = Llama(ModelConfig.from_pretrained(good / "one"))
    model.blocks[0].attn.bias = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(CheckpointError, match=r"blocks\.0\.attn\.bias"):
        load_weights(model, one)


FUZZ = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@FUZZ
@given(at=st.integers(0, 3000), byte=st.integers(0, 255), cut=st.integers(0, 4000))
def test_a_changed_byte_is_read_or_refused(good, tmp_path_factory, at, byte, cut):
    data = bytearray((good / "one" / "model.safetensors").read_bytes())
    data[at] = byte
    file = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    file.write_bytes(data[: len(data) - cut // 8 if cut % 2 else len(data)])
    try:
        tensors = read_header(file)
    except CheckpointError as error:
        assert len(str(error).splitlines()) <= 20
        return
    assert all(8 <= info.start <= info.end <= file.stat().st_size for info in tensors.values())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@FUZZ
@given(data=st.data())
def test_a_changed_config_is_read_or_refused(good, data):
    values = json.loads((good / "one" / "config.json").read_text())
    name = data.draw(st.sampled_from(sorted(values)))
    values[name] = data.draw(JSON)
    if data.draw(st.booleans()) and isinstance(values["rope_parameters"], dict):
        key = data.draw(st.sampled_from(["rope_theta", "rope_type", "factor", "type"]))
        values["rope_parameters"][key] = data.draw(JSON)
    try:
        config = ModelConfig.from_dict(values)
    except ConfigError:
        return
    assert config.head_dim > 0 and config.num_attention_heads % config.num_key_value_heads == 0
