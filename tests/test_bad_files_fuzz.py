"""Headers and configs changed at random: read or refused, and nothing else."""

import json
import shutil

import broken
from broken import header_of, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanoserve.checkpoints.headers import CheckpointError, read_header
from nanoserve.config import ConfigError, ModelConfig
from nanoserve.loader import load_weights
from nanoserve.model import Llama

# pytest finds a fixture by its name in the module.
good = broken.good


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


@FUZZ
@given(data=st.data())
def test_a_changed_header_is_read_or_refused(good, tmp_path_factory, data):
    header, bytes_of_data = header_of(good / "one" / "model.safetensors")
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(header)) | st.text(max_size=8))
        entry = header.get(name)
        if isinstance(entry, dict) and data.draw(st.booleans()):
            key = data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "more"]))
            numbers = st.lists(st.integers(0, 2**70) | st.integers(0, 99), max_size=3)
            entry[key] = data.draw(JSON | numbers | st.sampled_from(["F16", "I8", "U4"]))
        else:
            header[name] = data.draw(JSON)
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    shutil.copytree(good / "one", folder, dirs_exist_ok=True)
    write(folder / "model.safetensors", header, bytes_of_data)
    model = Llama(ModelConfig.from_pretrained(folder))
    try:
        load_weights(model, folder)
    except CheckpointError as error:
        lines = str(error).split("\n")
        assert len(lines) <= 20 and all(line.isprintable() for line in lines)
