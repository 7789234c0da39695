"""Configs nobody picked: whatever the family allows, ours and HuggingFace's agree."""

import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import save_tiny

from nanoserve.config import ModelConfig
from nanoserve.layers import rope_table
from nanoserve.loader import load_weights, read_index
from nanoserve.model import Llama
from nanoserve.reference import Reference, compare, our_name


@st.composite
def families(draw):
    """Keyword arguments of save_tiny, with the batch, the length and the dialect."""
    kv_heads = draw(st.integers(1, 6))
    heads = kv_heads * draw(st.integers(1, 8))
    rope = {"rope_type": "default", "rope_theta": draw(st.sampled_from([1e4, 1e5, 5e5]))}
    if draw(st.booleans()):
        low = draw(st.sampled_from([0.5, 1.0, 2.0]))
        rope |= {
            "rope_type": "llama3",
            "factor": draw(st.sampled_from([2.0, 8.0, 32.0])),
            "low_freq_factor": low,
            "high_freq_factor": low * draw(st.sampled_from([1.5, 4.0])),
            "original_max_position_embeddings": draw(st.sampled_from([16, 64, 8192])),
        }
    family = {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 2 * draw(st.integers(1, 40)),
        "hidden_size": heads * draw(st.integers(2, 12)),
        "intermediate_size": draw(st.integers(8, 130)),
        "vocab_size": draw(st.integers(11, 301)),
        "num_hidden_layers": draw(st.integers(1, 4)),
        "max_position_embeddings": draw(st.sampled_from([128, 2048, 131072])),
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5, 1e-3])),
        "tie_word_embeddings": draw(st.booleans()),
        "rope_parameters": rope,
        "dtype": draw(st.sampled_from([torch.bfloat16, torch.float16, torch.float32])),
        "shard": draw(st.sampled_from(["1GB", "20KB"])),
        "seed": draw(st.integers(0, 3)),
    }
    shape = draw(st.integers(1, 3)), draw(st.integers(1, 70))
    return family, shape, draw(st.booleans()), draw(st.integers(0, 100_000))


def old_dialect(folder: Path) -> None:
    """Rewrite config.json as the hub's older files are: rope_theta beside rope_scaling."""
    file = folder / "config.json"
    values = json.loads(file.read_text())
    rope = values.pop("rope_parameters")
    values["rope_theta"] = rope.pop("rope_theta")
    values["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    values["torch_dtype"] = values.pop("dtype")
    file.write_text(json.dumps(values))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(families())
def test_every_component_matches(case):
    family, (batch, length), old, start = case
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        theirs = save_tiny(folder, **family)
        if old:
            old_dialect(folder)
        ids = torch.randint(family["vocab_size"], (batch, length))
        positions = start + torch.arange(length) + 7 * torch.arange(batch)[:, None]
        ref = Reference(folder, input_ids=ids, positions=positions)
        config = ModelConfig.from_pretrained(folder)
        assert config.num_parameters == theirs.num_parameters()
        assert config.tensor_shapes() == {n: i.shape for n, i in read_index(folder).items()}
        model = Llama.from_pretrained(folder)
        check(model, ref, *rope_table(config, positions))


@torch.inference_mode()
def check(model, ref, cos, sin):
    for i, block in enumerate(model.blocks):
        at = f"blocks.{i}"
        for part, mine in {
            f"{at}.attn_norm": lambda x, block=block: block.attn_norm(x),
            f"{at}.attn": lambda x, block=block: block.attn(x, cos, sin),
            f"{at}.mlp_norm": lambda x, block=block: block.mlp_norm(x),
            f"{at}.mlp": lambda x, block=block: block.mlp(x),
            at: lambda x, block=block: block(x, cos, sin),
        }.items():
            compare(part, mine(ref.inputs[part]), ref.outputs[part])
    states = model.hidden_states(ref.input_ids, ref.positions)
    compare("embed", states[0], ref.outputs["embed"])
    compare("logits", model.logits(states[-1]), ref.outputs["logits"], rtol=1e-4, atol=1e-4)


def test_a_wrong_gain_would_be_seen(tmp_path):
    save_tiny(tmp_path)
    model = Llama.from_pretrained(tmp_path)
    model.blocks[1].mlp_norm.weight.data.fill_(1.0)
    ref = Reference(tmp_path)
    with pytest.raises(AssertionError, match=r"blocks\.1\.mlp_norm does not match"):
        check(model, ref, *rope_table(model.config, ref.positions))


def test_the_reference_keeps_what_is_stored(tmp_path):
    """It loads a model as it is stored and then widens it, whatever config.json calls its dtype."""
    save_tiny(tmp_path, torch.bfloat16)
    file = tmp_path / "model.safetensors"
    stored = load_file(file)
    for i, name in enumerate(stored):
        dtype = (torch.float32, torch.float16, torch.bfloat16)[i % 3]
        stored[name] = torch.randn_like(stored[name], dtype=torch.float32).to(dtype)
    save_file(stored, file, metadata={"format": "pt"})
    kept = Reference(tmp_path, keep_parameters=True).parameters
    for name, tensor in stored.items():
        compare(name, kept[our_name(name)], tensor.float(), rtol=0, atol=0)


@pytest.mark.parametrize(("count", "more"), [(5, False), (6, True)])
def test_a_warning_names_five_tensors_and_says_when_there_are_more(tmp_path, count, more):
    theirs = save_tiny(tmp_path)
    for parameter in list(theirs.parameters())[1 : count + 1]:
        parameter.data.flatten()[0] = torch.nan
    theirs.save_pretrained(tmp_path)
    model = Llama(ModelConfig.from_pretrained(tmp_path))
    with pytest.warns(UserWarning, match="NaN or infinity") as told:
        load_weights(model, tmp_path)
    assert told[0].filename == __file__  # it points to who loads
    message = str(told[0].message)
    assert message.count("model.layers.0.") == 5
    assert message.endswith(", ...") == more


def test_a_new_model_can_be_trained_and_a_loaded_one_is_frozen(tmp_path):
    save_tiny(tmp_path)
    loaded = Llama.from_pretrained(tmp_path)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert all(parameter.requires_grad for parameter in Llama(loaded.config).parameters())
