"""What is not built, or cannot be, is a ConfigError that names the field."""

import json

import pytest
from tiny import tiny_config

from nanoserve.checkpoints import DEFAULT
from nanoserve.config import ConfigError, ModelConfig
from nanoserve.model import Llama


def old_values() -> dict:
    """A sound config in the hub's dialect."""
    values = tiny_config().to_dict()
    values["rope_theta"] = values.pop("rope_parameters")["rope_theta"]
    return values


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
REFUSED = {
    "rope_scaling.rope_type": [
        {"rope_scaling": {"rope_type": kind, "factor": 2.0}}
        for kind in ("yarn", "linear", "dynamic", "longrope", "mrope", 3, None)
    ]
    + [{"rope_scaling": {"type": "linear", "factor": 2.0}}],
    "rope_parameters.rope_type": [{"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}],
    "rope_scaling.factor": [
        {"rope_scaling": LLAMA3 | {"factor": bad}} for bad in (0, -1, "8", None, True, float("nan"))
    ],
    "rope_scaling.low_freq_factor": [
        {"rope_scaling": LLAMA3 | {"low_freq_factor": bad}} for bad in (4.0, 5.0)
    ],
    "rope_scaling.original_max_position_embeddings": [
        {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 8192.5}}
    ],
    "rope_scaling": [{"rope_scaling": bad} for bad in ([1], "llama3", 8)],
    "rope_theta": [
        {"rope_theta": bad}
        for bad in (0, -1e4, "x", float("inf"), True, 2**63, 10**20, 1e19, 1e-31, 5e-324, 10**400)
    ]
    + [{"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}],
    "partial_rotary_factor": [
        {"partial_rotary_factor": 0.5},
        {"rope_parameters": {"partial_rotary_factor": 0.5}, "rope_theta": None},
    ],
    "attention_bias": [{"attention_bias": True}],
    "mlp_bias": [{"mlp_bias": True}],
    "hidden_act": [{"hidden_act": act} for act in ("gelu", "relu", "gelu_pytorch_tanh", 1)],
    "transformers_weights": [{"transformers_weights": "other.safetensors"}],
    "sliding_window": [{"sliding_window": 4096}],
    "quantization_config": [{"quantization_config": {"quant_method": "gptq"}}],
    "model_type": [{"model_type": kind} for kind in ("mistral", "qwen2", "gemma", "LLAMA", "")],
    "hidden_size": [{"hidden_size": bad} for bad in (0, -48, 48.0, "48", None, True)]
    + [{"hidden_size": 50, "head_dim": None}],
    "head_dim": [{"head_dim": bad} for bad in (15, 0, -2, "16")],
    "num_key_value_heads": [{"num_key_value_heads": bad} for bad in (3, 8, 0, -1)],
    "num_attention_heads": [{"num_attention_heads": bad} for bad in (0, None, 4.5)],
    "num_hidden_layers": [{"num_hidden_layers": bad} for bad in (0, -1, None, 10**7)],
    "bos_token_id": [{"bos_token_id": bad} for bad in ("1", 1.5, True, [1])],
    "eos_token_id": [{"eos_token_id": bad} for bad in ("2", {"a": 1}, [], [None, 2], [2, "x"])],
    "dtype": [{"dtype": bad} for bad in (["bfloat16"], 16)],
    "vocab_size": [{"vocab_size": bad} for bad in (0, None, 2**40)],
    "intermediate_size": [{"intermediate_size": bad} for bad in (0, None, [80])],
    "rms_norm_eps": [{"rms_norm_eps": bad} for bad in (0, -1e-5, "1e-5", float("nan"), 1e-46)],
    "tie_word_embeddings": [{"tie_word_embeddings": bad} for bad in (1, "true", None)],
    "max_position_embeddings": [{"max_position_embeddings": bad} for bad in (2**31, 8e3, None)],
}
CASES = [(field, change) for field, changes in REFUSED.items() for change in changes]


def test_the_config_that_they_change_is_sound():
    assert ModelConfig.from_dict(old_values()).hidden_size == 48


@pytest.mark.parametrize(("field", "change"), CASES, ids=lambda value: str(value)[:50])
def test_refused_by_name(field, change):
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_dict(old_values() | change)
    assert field in str(error.value)
    assert len(str(error.value)) < 400


def test_all_bad_fields_are_told_together():
    change = {"hidden_act": "gelu", "rms_norm_eps": -1, "vocab_size": None}
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_dict(old_values() | change)
    for field in change:
        assert field in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"rope_scaling": [1]},
        {"rope_scaling": LLAMA3, "rope_parameters": LLAMA3 | {"factor": 2.0}, "rope_theta": 1e4},
        {"hidden_size": 50, "head_dim": None},
        {"head_dim": 15},
    ],
    ids=str,
)
def test_one_fault_is_one_sentence(change):
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_dict(old_values() | change)
    assert ";" not in str(error.value)


def test_the_value_that_is_built_is_told():
    with pytest.raises(ConfigError, match=r"partial_rotary_factor must be 1, not 0\.5"):
        ModelConfig.from_dict(old_values() | {"partial_rotary_factor": 0.5})


def test_what_was_found_is_told():
    values = old_values() | {"vocab_size": 0}
    del values["hidden_size"]
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_dict(values)
    told = str(error.value).split("; ")
    assert [line[-9:] for line in told] == [", found 0", "d nothing"]


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json.*No such file"):
        ModelConfig.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden_size": 48,')
    with pytest.raises(ConfigError, match=r"config\.json.*line 1"):
        ModelConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "change", [{"num_hidden_layers": 10_000}, {"max_position_embeddings": 2**31 - 1}], ids=str
)
def test_the_largest_is_accepted(change):
    config = ModelConfig.from_dict(old_values() | change)
    assert change.items() <= vars(config).items()


def test_theta_may_stand_in_both_places():
    values = old_values() | {"rope_scaling": LLAMA3 | {"rope_theta": 77e3}, "rope_theta": 77e3}
    values = json.loads(json.dumps(values))  # equal numbers, not the same object
    assert ModelConfig.from_dict(values).rope_theta == 77e3


@pytest.mark.parametrize("bad", [None, [], "x", 3])
def test_only_an_object_is_a_config(bad):
    with pytest.raises(ConfigError, match="object"):
        ModelConfig.from_dict(bad)


@pytest.mark.parametrize("read", [ModelConfig.from_pretrained, Llama.from_pretrained])
@pytest.mark.parametrize("name", [DEFAULT, "my-own"])
def test_a_name_in_place_of_a_folder_says_what_to_write(read, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"checkpoints\.checkpoint_path\('{name}'\)$"):
        read(name)


def test_a_folder_without_a_config_is_not_taken_for_a_name(tmp_path):
    with pytest.raises(ConfigError, match=r"No such file or directory$"):
        ModelConfig.from_pretrained(tmp_path)


def test_a_dtype_by_its_name_is_refused():
    with pytest.raises(TypeError, match=r"torch\.bfloat16, not 'float16'"):
        ModelConfig.from_dict(old_values()).kv_cache_bytes_per_token("float16")
