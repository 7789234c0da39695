"""ModelConfig against HuggingFace's LlamaConfig, and what follows from it: Day 2."""

import copy
import json

import torch

from nanoserve.checks.common import BF16, F32, KIND, agree, attempt
from nanoserve.config import ModelConfig, RopeScaling
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


def check_configs() -> None:
    """Made-up configs that are right, in both dialects, against HuggingFace's reading."""
    for extra in AWKWARD:
        values = SMALL | extra
        before = json.dumps(values)
        theirs = transformers.LlamaConfig(**json.loads(before))  # which may change what it gets
        mine = attempt(extra, ModelConfig.from_dict, values)
        agree("the dict that from_dict was given", json.dumps(values), before)
        compare_config(f"made up, {extra}", mine, theirs)
    check_spellings()
    for cls in (ModelConfig, RopeScaling):
        agree(f"a {cls.__name__} is frozen", cls.__dataclass_params__.frozen, True)


def check_spellings() -> None:
    """The older name of dtype, both dialects in one file, the whole head named as rotated."""
    older = attempt("torch_dtype", ModelConfig.from_dict, SMALL | {"torch_dtype": "bfloat16"})
    agree("torch_dtype", older.dtype, "bfloat16")
    dialects = {"rope_scaling": ROPE_PARAMETERS, "rope_parameters": ROPE_PARAMETERS}
    both = attempt(dialects, ModelConfig.from_dict, SMALL | dialects | {"rope_theta": 2e4})
    agree("both dialects, rope_theta", both.rope_theta, 2e4)
    agree("both dialects, factor", both.rope_scaling.factor, 8.0)
    whole = {"partial_rotary_factor": 1.0}
    plain, rotated = (attempt(x, ModelConfig.from_dict, SMALL | x) for x in ({}, whole))
    agree("the whole head is rotated", rotated, plain)


def compare_config(where: str, mine: ModelConfig, theirs: transformers.LlamaConfig) -> None:
    """Each field, the tensors and the cache, read from `theirs` in the newer dialect too."""
    again = attempt(f"{where}, newer dialect", ModelConfig.from_dict, theirs.to_dict())
    agree(f"{where}, newer dialect", again, mine)
    with torch.device("meta"):
        model = modeling_llama.LlamaForCausalLM(theirs)
    model.tie_weights()  # transformers 5.0 leaves meta tensors apart
    for what, config in ((where, mine), (f"{where}, newer dialect", again)):
        compare_fields(what, config, theirs)
        compare_tensors(what, config, model)
    compare_cache(where, mine, theirs)


def compare_fields(where: str, mine: ModelConfig, theirs: transformers.LlamaConfig) -> None:
    """Every field; those of which the two have another name or form come last."""
    for name in FIELDS:
        agree(f"{where}, {name}", getattr(mine, name), getattr(theirs, name))
    eos = theirs.eos_token_id
    eos = tuple(eos) if isinstance(eos, list) else eos
    agree(f"{where}, eos_token_id", mine.eos_token_id, eos)
    stored = None if theirs.dtype is None else str(theirs.dtype).removeprefix("torch.")
    agree(f"{where}, dtype", mine.dtype, stored)
    rope = dict(theirs.rope_parameters)
    agree(f"{where}, rope_theta", mine.rope_theta, rope.pop("rope_theta"))
    rope.pop("type", None)  # the older name of the next
    scaled = rope.pop("rope_type") == "llama3"
    agree(f"{where}, is scaled", mine.rope_scaling is not None, scaled)
    if scaled:
        agree(f"{where}, scaling", vars(mine.rope_scaling), rope)


def compare_tensors(where: str, mine: ModelConfig, model: torch.nn.Module) -> None:
    """The tensors' names and shapes, and how many numbers they hold."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    agree(f"{where}, tensor_shapes", attempt(where, mine.tensor_shapes), shapes)
    agree(f"{where}, num_parameters", mine.num_parameters, model.num_parameters())


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
        needed = attempt(where, mine.kv_cache_bytes_per_token, dtype)
        what = f"{where}, bytes of the cache in {KIND[dtype]}"
        agree(what, 2 * tokens * needed, theirs.num_hidden_layers * held)
