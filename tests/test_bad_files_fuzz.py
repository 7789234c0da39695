"""Headers and configs changed at random: read or refused, and nothing else."""

import json

import broken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanoserve.config import ConfigError, ModelConfig
from nanoserve.headers import CheckpointError, read_header

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
