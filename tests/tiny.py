"""Small Llamas, made and saved by transformers itself, with weights that hide nothing."""

import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def tiny_config(**changes) -> LlamaConfig:
    """A small config; `changes` are LlamaConfig's own fields."""
    sizes = {
        "vocab_size": 97,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "pad_token_id": None,
    }
    return LlamaConfig(**sizes | changes)


def tiny_model(config: LlamaConfig, seed: int = 0) -> LlamaForCausalLM:
    """A model in which no bug hides: gains spread over 0.5 to 1.5, projections of unit scale.

    HuggingFace's own initial weights have all gains at 1 and every projection near 0.
    """
    generator = torch.Generator().manual_seed(seed)
    model = LlamaForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.data.uniform_(0.5, 1.5, generator=generator)
        else:
            scale = 1.0 if "embed" in name else parameter.shape[1] ** -0.5
            parameter.data.normal_(0, scale, generator=generator)
    return model


def save_tiny(
    folder: Path, dtype=torch.float32, shard="1GB", seed=0, **changes
) -> LlamaForCausalLM:
    """Save a tiny model in `dtype` to `folder`; return it as saved, in float32."""
    model = tiny_model(tiny_config(**changes), seed).to(dtype)
    model.save_pretrained(folder, max_shard_size=shard)
    return model.float()


def save_wide(folder: Path) -> LlamaForCausalLM:
    """What no default is: fp16, untied, scaled RoPE, heads of 128, together wider than a vector."""
    sizes = {"vocab_size": 300, "hidden_size": 192, "intermediate_size": 320, "head_dim": 128}
    scaled = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0}
    scaled |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 128}
    other = {"num_hidden_layers": 3, "tie_word_embeddings": False, "rope_parameters": scaled}
    return save_tiny(folder, torch.float16, "1MB", **sizes, **other)


if __name__ == "__main__":
    save_wide(Path(sys.argv[1]))
