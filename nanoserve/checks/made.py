"""Small checkpoints that HuggingFace makes and saves, and empty modules to load into: Day 3."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from nanoserve.checks.common import BF16, F16, F32, F64
from nanoserve.comparison import MADE_UP
from nanoserve.reference import transformers

FILE = "model.safetensors"
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
DOWN, NORM = "model.layers.1.mlp.down_proj.weight", "model.norm.weight"
TABLE = "rotary_emb.inv_freq"  # how the name of RoPE's table ends, in old files
SIZES = {
    "vocab_size": 37,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "num_hidden_layers": 3,
    "rms_norm_eps": 1e-5,
    "pad_token_id": None,
}
TIED = {"tie_word_embeddings": True}
Tensors = dict[str, torch.Tensor]  # by name


def made_up_checkpoints(folder: str) -> Iterator[Path]:
    """One after another, each with something that the compared checkpoints lack."""
    yield save_checkpoint(folder, "tied, square, bf16", BF16, head_dim=6, **TIED)
    yield save_checkpoint(folder, "tied, one file, fp32", **TIED)
    yield add_relics(save_checkpoint(folder, "tied, relics, fp32", **TIED))
    yield save_shards(folder)
    one_layer = {"num_hidden_layers": 1, "num_key_value_heads": 4}
    yield save_checkpoint(folder, "untied, one layer, fp64", F64, **one_layer)
    # Trained matrices have millions of numbers, and are not all bf16.
    large = {"vocab_size": 50_000, "num_hidden_layers": 1}
    yield save_checkpoint(folder, "tied, large vocabulary, fp32", **large, **TIED)


def save_checkpoint(
    folder: str, name: str, dtype: torch.dtype = F32, shard: str = "1GB", **changes: object
) -> Path:
    """A checkpoint of SIZES with `changes`, in files of at most `shard`."""
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES | changes))
    for parameter in model.parameters():
        nn.init.normal_(parameter.data)
        parameter.data.flatten()[:4] *= torch.tensor([1e-9, 1e-6, 1e-3, 1e3])
    path = Path(folder) / name / MADE_UP  # one row of the table for all
    model.to(dtype).save_pretrained(path, max_shard_size=shard)
    return path


def save_shards(folder: str) -> Path:
    """An untied checkpoint of twelve layers, in many files."""
    name = "untied, 12 layers, shards, fp16"
    return save_checkpoint(folder, name, F16, "9KB", num_hidden_layers=12)


def add_relics(path: Path) -> Path:
    """What old files hold too: RoPE's tables, a copy of the tied head; and a stale index."""
    file = path / FILE
    good = read_tensors(file)
    tables = [f"model.layers.{i}.self_attn.{TABLE}" for i in range(3)] + [f"model.{TABLE}"]
    relics = {name: torch.ones(5).int() for name in tables} | {HEAD: good[EMBED].clone()}
    save_file(good | relics, file)
    # An index and a shard beside one whole file are leftovers, and not read.
    stale = "model-00001-of-00001.safetensors"
    save_file({EMBED: torch.zeros_like(good[EMBED])}, path / stale)
    index = json.dumps({"weight_map": {EMBED: stale}})
    (path / "model.safetensors.index.json").write_text(index, "utf-8")
    return path


def read_tensors(file: Path) -> Tensors:
    """A file's tensors, copied: it will be written over."""
    return {name: tensor.clone() for name, tensor in load_file(file).items()}


def empty_model(
    shapes: Mapping[str, tuple], dtype: torch.dtype = F32, value: float = torch.nan
) -> nn.Module:
    """A module of parameters under the names in `shapes`, each full of `value`."""
    root = nn.Module()
    for name, shape in shapes.items():
        *parents, last = name.split(".")
        module = root
        for parent in parents:
            if parent not in dict(module.named_children()):
                module.add_module(parent, nn.Module())
            module = module.get_submodule(parent)
        full = torch.full(tuple(shape), value, dtype=dtype)
        module.register_parameter(last, nn.Parameter(full))
    return root
