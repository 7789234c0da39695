"""ModelConfig against HuggingFace's LlamaConfig, and what follows from it: Day 2."""

import copy
import json
from typing import Any

import torch

from nanoserve.checks.common import BF16, F32, KIND, attempt
from nanoserve.config import ModelConfig
from nanoserve.reference import modeling_llama, transformers

FIELDS = (  # that both have, by one name and in one form
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rms_norm_eps",
    "max_position_embeddings",
    "tie_word_embeddings",
    "bos_token_id",
)

# A config of the fields that have no default, and a scaling in the words of both dialects.
SMALL = {
    "vocab_size": 99,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
}
FACTORS = {
    "factor": 8.0,
    "low_freq_factor": 1.5,
    "high_freq_factor": 4.5,
    "original_max_position_embeddings": 64,
}
SCALING = {"rope_type": "llama3"} | FACTORS
OLDER_SCALING = {"type": "llama3"} | FACTORS
ROPE_PARAMETERS = SCALING | {"rope_theta": 2e4}

# What is added to SMALL, or put for its values.
AWKWARD = (
    {},
    {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
    {"num_key_value_heads": 2, "head_dim": 20},
    {"num_key_value_heads": 1, "max_position_embeddings": 77},
    {"num_hidden_layers": 1},
    {"tie_word_embeddings": True, "rms_norm_eps": 1e-3},
    {"eos_token_id": [3, 5, 7], "bos_token_id": 0},
    {"eos_token_id": None, "bos_token_id": None, "dtype": "float16"},
    {"rope_theta": 5e5, "rope_scaling": SCALING},
    {"rope_theta": 5e5, "rope_scaling": OLDER_SCALING},
    {"rope_theta": 3e4, "rope_scaling": None, "head_dim": None},
    {"rope_theta": 7e4, "num_key_value_heads": None},
    {"rope_parameters": ROPE_PARAMETERS},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 4e4}},
)
# More ways to say RoPE and a dtype, and the ends of the numbers that are taken.
SPELLINGS = (
    {"rope_scaling": None, "rope_parameters": ROPE_PARAMETERS},
    {"rope_scaling": {}, "rope_parameters": ROPE_PARAMETERS},
    {"rope_theta": 5e5, "rope_scaling": SCALING, "rope_parameters": None},
    {"rope_theta": 6e4, "rope_parameters": {"rope_type": "default"}},
    {"rope_theta": 6e4, "rope_parameters": {}},
    {"rope_theta": 6e4, "rope_scaling": {"type": "default"}},
    {"rope_scaling": SCALING | {"rope_theta": 6e4}},
    {"rope_theta": 2e4, "rope_scaling": ROPE_PARAMETERS, "rope_parameters": ROPE_PARAMETERS},
    {"partial_rotary_factor": 1.0},
    {"torch_dtype": "bfloat16"},
    {"dtype": None, "torch_dtype": "float16"},
    {"dtype": "float16", "torch_dtype": "bfloat16"},
    {"rope_theta": 3580165449},
    {"rope_theta": 10**18},
    {"rope_theta": 1e-30},
    {"rms_norm_eps": 1e-30},
    {"rope_theta": 5e5, "rope_scaling": SCALING | {"factor": 8}},
    {"max_position_embeddings": 2**31 - 1},
)


def check_configs() -> None:
    """Made-up configs that are right, in both dialects, against HuggingFace's reading."""
    for extra in AWKWARD:
        compare_config(f"a config with {extra}", *read_both(extra))
    for extra in SPELLINGS:
        compare_fields(f"a config with {extra}", *read_both(extra))


def read_both(extra: dict[str, Any]) -> tuple[ModelConfig, transformers.LlamaConfig]:
    """SMALL with `extra`, as we read it and as HuggingFace does."""
    values = SMALL | extra
    before = json.dumps(values)
    theirs = transformers.LlamaConfig(**json.loads(before))  # which may change what it gets
    mine = attempt(f"from_dict, given {extra}", ModelConfig.from_dict, values)
    if json.dumps(values) != before:
        raise AssertionError(f"from_dict changed the dict that it was given: {before} to {values}")
    return mine, theirs


def same(where: str, what: str, mine: Any, theirs: Any) -> None:
    """AssertionError, in a sentence, unless both are of one type and equal."""
    if type(mine) is not type(theirs) or mine != theirs:
        raise AssertionError(
            f"Reading {where}: {what} should be {theirs!r:.300}, as HuggingFace has it, "
            f"and is {mine!r:.300}."
        )


def compare_config(where: str, mine: ModelConfig, theirs: transformers.LlamaConfig) -> None:
    """Each field, the tensors and the cache, read from `theirs` in the newer dialect too."""
    newer = f"{where}, as transformers 5 writes it"
    again = attempt(f"from_dict, given {newer}", ModelConfig.from_dict, theirs.to_dict())
    with torch.device("meta"):
        model = modeling_llama.LlamaForCausalLM(theirs)
    model.tie_weights()  # transformers 5.0 leaves meta tensors apart
    for what, config in ((where, mine), (newer, again)):
        compare_fields(what, config, theirs)
        compare_tensors(what, config, model)
    compare_cache(where, mine, theirs)


def compare_fields(where: str, mine: ModelConfig, theirs: transformers.LlamaConfig) -> None:
    """Every field; those of which the two have another name or form come last."""
    for name in FIELDS:
        same(where, name, getattr(mine, name), getattr(theirs, name))
    eos = theirs.eos_token_id
    eos = tuple(eos) if isinstance(eos, list) else eos
    same(where, "eos_token_id", mine.eos_token_id, eos)
    stored = None if theirs.dtype is None else str(theirs.dtype).removeprefix("torch.")
    same(where, "dtype", mine.dtype, stored)
    rope = dict(theirs.rope_parameters)
    same(where, "rope_theta", mine.rope_theta, rope.pop("rope_theta"))
    rope.pop("type", None)  # the older name of the next
    scaled = rope.pop("rope_type") == "llama3"
    scaling = None if mine.rope_scaling is None else vars(mine.rope_scaling)
    same(where, "rope_scaling", scaling, rope if scaled else None)


def compare_tensors(where: str, mine: ModelConfig, model: torch.nn.Module) -> None:
    """The tensors' names and shapes, and how many numbers they hold."""
    mine_has = attempt(f"tensor_shapes of {where}", mine.tensor_shapes)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    for name in sorted(shapes.keys() | mine_has.keys()):
        what = f"the shape of {name} in tensor_shapes()"
        same(where, what, mine_has.get(name, "nothing"), shapes.get(name, "nothing"))
    same(where, "num_parameters", mine.num_parameters, model.num_parameters())


@torch.inference_mode()
def compare_cache(where: str, mine: ModelConfig, theirs: transformers.LlamaConfig) -> None:
    """The cache's bytes a token against what HuggingFace's holds after a forward."""
    cut = copy.deepcopy(theirs)  # to two layers, and what no cache holds
    cut.vocab_size, cut.intermediate_size, cut.pad_token_id = 9, 9, None
    cut.num_hidden_layers = 2
    model, tokens = modeling_llama.LlamaForCausalLM(cut), 5
    for dtype in (F32, BF16):
        cache = transformers.DynamicCache(config=cut)
        model.to(dtype)(torch.zeros(1, tokens, dtype=torch.int64), past_key_values=cache)
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        what = f"kv_cache_bytes_per_token in {KIND[dtype]}"
        needed = attempt(f"{what} of {where}", mine.kv_cache_bytes_per_token, dtype)
        same(where, what, needed, theirs.num_hidden_layers * held // (2 * tokens))
