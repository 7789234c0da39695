"""The family's real configs: shapes and parameter counts as transformers makes them."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

from nanoserve.config import ModelConfig
from nanoserve.layers import RMSNorm, rope_inverse_frequencies

LLAMA31_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LLAMA32_ROPE = LLAMA31_ROPE | {"factor": 32.0}

# name: vocab, hidden, intermediate, layers, heads, kv heads, context, theta, scaling, eps, tied
PRESETS = {
    "Llama-2-7B": (32000, 4096, 11008, 32, 32, 32, 4096, 1e4, None, 1e-5, False),
    "Llama-3-8B": (128256, 4096, 14336, 32, 32, 8, 8192, 5e5, None, 1e-5, False),
    "Llama-3.1-8B": (128256, 4096, 14336, 32, 32, 8, 131072, 5e5, LLAMA31_ROPE, 1e-5, False),
    "Llama-3.2-1B": (128256, 2048, 8192, 16, 32, 8, 131072, 5e5, LLAMA32_ROPE, 1e-5, True),
    "Llama-3.2-3B": (128256, 3072, 8192, 28, 24, 8, 131072, 5e5, LLAMA32_ROPE, 1e-5, True),
    "TinyLlama-1.1B": (32000, 2048, 5632, 22, 32, 4, 2048, 1e4, None, 1e-5, False),
    "SmolLM2-135M": (49152, 576, 1536, 30, 9, 3, 8192, 1e5, None, 1e-5, True),
    "SmolLM2-360M": (49152, 960, 2560, 32, 15, 5, 8192, 1e5, None, 1e-5, True),
    "SmolLM2-1.7B": (49152, 2048, 8192, 24, 32, 32, 8192, 13e4, None, 1e-5, True),
}
FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rope_theta",
    "rope_scaling",
    "rms_norm_eps",
    "tie_word_embeddings",
)


@pytest.mark.parametrize("name", PRESETS)
def test_preset(name):
    values = dict(zip(FIELDS, PRESETS[name], strict=True)) | {"model_type": "llama"}
    config = ModelConfig.from_dict(values)
    theirs_config = LlamaConfig(**values)
    with torch.device("meta"):
        theirs = LlamaForCausalLM(theirs_config)
    theirs.tie_weights()  # transformers 5.0 leaves tensors on the meta device apart
    shapes = {name: tuple(t.shape) for name, t in theirs.named_parameters()}
    assert config.tensor_shapes() == shapes
    assert config.num_parameters == theirs.num_parameters()
    assert ModelConfig.from_dict(theirs_config.to_dict()) == ModelConfig.from_dict(
        values | {"torch_dtype": theirs_config.to_dict().get("dtype")}
    )


def test_llama_3_2_1b_has_the_published_count():
    values = dict(zip(FIELDS, PRESETS["Llama-3.2-1B"], strict=True))
    assert ModelConfig.from_dict(values).num_parameters == 1_235_814_400


# The ends of what is taken, whole numbers and others.
ENDS = (1e-30, 0.5, 1, 2**31, 3580165449, 2**53 + 1, 10**18, 1e18)


def with_rope(theta, **scaling) -> dict:
    """SmolLM2's sizes with another base, and other numbers in a scaling."""
    values = dict(zip(FIELDS, PRESETS["SmolLM2-135M"], strict=True)) | {"rope_theta": theta}
    return values | {"rope_scaling": LLAMA31_ROPE | scaling if scaling else None}


@pytest.mark.parametrize(
    "values",
    [
        *(with_rope(theta) for theta in ENDS),
        *(with_rope(5e5, factor=factor) for factor in ENDS),
        *(with_rope(theta, factor=8) for theta in ENDS),
        with_rope(5e5, low_freq_factor=1e-30),
        with_rope(5e5, high_freq_factor=10**18),
        with_rope(5e5, original_max_position_embeddings=2**31 - 1),
        with_rope(5e5, original_max_position_embeddings=1),
    ],
    ids=str,
)
def test_numbers_at_the_ends_turn_as_huggingface_turns_them(values):
    theirs = LlamaRotaryEmbedding(LlamaConfig(**values)).inv_freq
    mine = rope_inverse_frequencies(ModelConfig.from_dict(values))
    assert mine.isfinite().all()
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("eps", [1e-30, 1e-7, 1e18])
def test_an_epsilon_at_the_ends_divides_as_huggingfaces(eps):
    theirs_config = LlamaConfig(hidden_size=8, num_attention_heads=2, rms_norm_eps=eps)
    mine = ModelConfig.from_dict(theirs_config.to_dict()).rms_norm_eps
    x = torch.tensor([[0.0] * 8, [1e-20] * 8, [1.0] * 8])
    theirs = LlamaRMSNorm(8, theirs_config.rms_norm_eps)
    torch.testing.assert_close(RMSNorm(8, mine)(x), theirs(x), rtol=0, atol=0)
