"""Damaged and hostile safetensors files: one clear error, the model as it was."""

import json
import struct
import warnings

import broken
import pytest
import torch
from broken import NORM, UP, changed, header_of, refused, write

from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.config import ModelConfig
from nanoserve.loader import load_weights
from nanoserve.model import Llama

# pytest finds a fixture by its name in the module.
good, one, shards, model = broken.good, broken.one, broken.shards, broken.model


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
        ({"dtype": "F8_E4M3"}, "F8_E4M3"),
        ({"dtype": ["F32"]}, "dtype"),
        ({"dtype": None}, "dtype"),
        ({"dtype": "I32"}, "I32"),
        ({"shape": [48, 80]}, "[48, 80]"),
        ({"shape": [80, 49]}, "[80, 49]"),
        ({"shape": [-80, -48]}, "shape"),
        ({"shape": [2**62, 2**62]}, "takes"),
        ({"shape": []}, "takes 4 bytes"),
        ({"shape": [0, 48]}, "takes 0 bytes"),
        ({"shape": [10**4000, 10**4000]}, "shape"),
        ({"shape": [9] * 100_000}, "shape"),
        ({"shape": "x"}, "shape"),
        ({"shape": [80.0, 48.0]}, "shape"),
        ({"data_offsets": [0, 10**12]}, "not within"),
        ({"data_offsets": [10**4000, 10**4000]}, "data_offsets"),
        ({"data_offsets": [80, 0]}, "not within"),
        ({"data_offsets": [-8, 8]}, "data_offsets"),
        ({"data_offsets": [0]}, "data_offsets"),
        ({"data_offsets": None}, "data_offsets"),
        ({"data_offsets": [0, 80 * 48 * 4]}, "invalid offset"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_entry_that_cannot_be(one, model, fields, text):
    changed(one, UP, **fields)
    assert text in refused(model, one, UP if text != "invalid offset" else text)


@pytest.mark.parametrize("value", [3, [], {"format": 1}, {"format": {}}], ids=str)
def test_metadata_that_is_not_text(one, model, value):
    header, data = header_of(one / "model.safetensors")
    write(one / "model.safetensors", header | {"__metadata__": value}, data)
    refused(model, one, "model.safetensors", "invalid type")


def test_bytes_that_no_tensor_has(one, model):
    file = one / "model.safetensors"
    file.write_bytes(file.read_bytes() + bytes(8))
    refused(model, one, "model.safetensors cannot be loaded", "not fully covered")


def test_gap_in_the_data(one, model):
    header, data = header_of(one / "model.safetensors")
    del header[NORM]
    write(one / "model.safetensors", header, data)
    refused(model, one, "model.safetensors cannot be loaded", "not fully covered")


def test_missing_unexpected_and_misshapen_are_told_together(one, model):
    header, data = header_of(one / "model.safetensors")
    header["model.layers.9.mlp.up_proj.weight"] = header.pop(UP)
    header["model.layers.0.mlp.down_proj.weight"]["shape"] = [80, 48]
    write(one / "model.safetensors", header, data)
    told = refused(
        model, one, UP, "missing", "model.layers.9", "unexpected", "[80, 48]", "[48, 80]"
    )
    assert told.index("missing") < told.index("shape [") < told.index(": unexpected")


def test_long_lists_are_cut(one, model):
    header, data = header_of(one / "model.safetensors")
    renamed = {f"x{i}": entry for i, entry in enumerate(header.values()) if "dtype" in entry}
    write(one / "model.safetensors", renamed, data)
    told = refused(model, one, "embed_tokens.weight: missing", "x1: unexpected", "and 15 more")
    assert told.count("more") == 2


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


def test_tied_head_of_fewer_rows_does_not_differ_in_values(one, model):
    header, data = header_of(one / "model.safetensors")
    shorter = {"dtype": "F32", "shape": [1, 48], "data_offsets": [len(data), len(data) + 192]}
    write(one / "model.safetensors", header | {"lm_head.weight": shorter}, data + bytes(192))
    assert "differ" not in refused(model, one, "lm_head.weight", "[1, 48], not [97, 48]")


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
