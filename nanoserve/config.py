"""What config.json says about a model, read strictly.

Built in the book: day02. Edit there, then run book/tangle.py.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from reprlib import repr as short
from typing import Any

import torch

from nanoserve.checkpoints.strictjson import json_file


class ConfigError(ValueError):
    """A config.json that cannot be read, or asks for what is not built."""


@dataclass(frozen=True)
class RopeScaling:
    """The llama3 way to stretch RoPE: slow the pairs that turn slowly.

    Turns are counted over `original_max_position_embeddings` tokens. A
    pair that finishes fewer than `low_freq_factor` is slowed by `factor`;
    with more than `high_freq_factor` it is left alone; between, blended.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and constants of a Llama, under config.json's own names.

    Day 2 says what each is for. ConfigError where they contradict each
    other. `dtype` is the file's, as config.json spells it.
    """

    vocab_size: int
    hidden_size: int  # C
    intermediate_size: int  # F
    num_hidden_layers: int
    num_attention_heads: int  # H
    num_key_value_heads: int  # K
    head_dim: int  # D
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool
    rope_scaling: RopeScaling | None = None
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    dtype: str | None = None

    def __post_init__(self):
        refuse_contradictions(self)

    @classmethod
    def from_pretrained(cls, path: str | PathLike) -> "ModelConfig":
        """Read config.json in folder `path`; ConfigError if that fails."""
        return read_file(path, cls.from_dict)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Take config.json's fields; ConfigError naming each bad one."""
        return cls(**read_fields(values))

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, by its name in the checkpoint."""
        C, F, D = self.hidden_size, self.intermediate_size, self.head_dim
        q_size = self.num_attention_heads * D
        kv_size = self.num_key_value_heads * D
        layer = {  # matrices are (out, in)
            "input_layernorm": (C,),
            "self_attn.q_proj": (q_size, C),
            "self_attn.k_proj": (kv_size, C),
            "self_attn.v_proj": (kv_size, C),
            "self_attn.o_proj": (C, q_size),
            "post_attention_layernorm": (C,),
            "mlp.gate_proj": (F, C),
            "mlp.up_proj": (F, C),
            "mlp.down_proj": (C, F),
        }
        shapes = {"model.embed_tokens.weight": (self.vocab_size, C)}
        for i in range(self.num_hidden_layers):
            for name, shape in layer.items():
                shapes[f"model.layers.{i}.{name}.weight"] = shape
        shapes["model.norm.weight"] = (C,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, C)
        return shapes

    @property
    def num_parameters(self) -> int:
        """The number of parameters; a tied head is counted once."""
        return sum(map(math.prod, self.tensor_shapes().values()))

    def kv_cache_bytes_per_token(self, dtype: torch.dtype) -> int:
        """Bytes of one token's keys and values in `dtype`, all layers."""
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"dtype must be one of torch's, such as torch.bfloat16, not {dtype!r}")
        per_layer = 2 * self.num_key_value_heads * self.head_dim
        return self.num_hidden_layers * per_layer * dtype.itemsize


# What HuggingFace's Llama takes where a file is silent; old files are.
DEFAULTS = {
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

# Fields that would change the mathematics, or which file is read, and
# the values that are built. Absent means the first.
BUILT_VALUES = {
    "model_type": ("llama",),
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "sliding_window": (None,),
    "quantization_config": (None,),
    "rope_interleaved": (False,),
    "partial_rotary_factor": (None, 1),
    "original_max_position_embeddings": (None,),  # is in rope_scaling
    "transformers_weights": (None,),  # another file than we would read
}

CHECKS = {  # by a field's type: what is wanted, and whether it is that
    int: (
        "a whole number from 1 to 2147483647",
        lambda v: type(v) is int and 0 < v < 2**31,
    ),
    float: (  # as float32 not 0 and not infinite, as int64 not too long
        "a number from 1e-30 to 1e18",
        lambda v: type(v) in (int, float) and 1e-30 <= v <= 1e18,
    ),
    bool: ("true or false", lambda v: type(v) is bool),
    str | None: ("a name or null", lambda v: v is None or type(v) is str),
    int | None: ("a whole number or null", lambda v: v is None or type(v) is int),
    int | tuple[int, ...] | None: (
        "a whole number, a list of them, or null",
        lambda v: v is None or {int} == {*map(type, v if type(v) is tuple else [v])},
    ),
}


def wrong_fields(cls: type, values: dict[str, Any], prefix: str = "") -> list[str]:
    """What in `values` does not fit dataclass `cls`, a sentence each."""
    wrong = []
    for field in fields(cls):
        wanted, fits = CHECKS.get(field.type, ("", lambda v: True))
        name, value = field.name, values.get(field.name)
        if not fits(value):
            found = short(value) if name in values else "nothing"
            wrong.append(f"{prefix}{name} must be {wanted}, found {found}")
    return wrong


def refuse_contradictions(config: ModelConfig) -> None:
    """ConfigError where the numbers of a config cannot be together."""
    H, K = config.num_attention_heads, config.num_key_value_heads
    D, layers = config.head_dim, config.num_hidden_layers
    if H % K:
        raise ConfigError(f"num_key_value_heads {K} must divide {H} heads")
    if D % 2:
        raise ConfigError(f"head_dim {D} must be even: RoPE turns pairs")
    if layers > 10_000:
        raise ConfigError(f"num_hidden_layers {layers} is past belief")


def read_scaling(rope: dict[str, Any], name: str) -> tuple[RopeScaling | None, list[str]]:
    """The scaling in config.json's object `name`, and what is wrong."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None, []
    if kind != "llama3":
        return None, [f"{name}.rope_type {short(kind)} is not default or llama3"]
    wrong = wrong_fields(RopeScaling, rope, f"{name}.")
    low, high = rope.get("low_freq_factor"), rope.get("high_freq_factor")
    if not wrong and not low < high:
        wrong = [f"{name}.low_freq_factor must be less than high_freq_factor"]
    numbers = {f.name: rope.get(f.name) for f in fields(RopeScaling)}
    return RopeScaling(**numbers), wrong


def read_rope(values: dict[str, Any]) -> tuple[Any, RopeScaling | None, list[str]]:
    """rope_theta, the scaling, and what is wrong, from either dialect."""
    old, new = values.get("rope_scaling"), values.get("rope_parameters")
    name = "rope_scaling" if old else "rope_parameters"
    rope = old or new or {}
    if not isinstance(rope, dict):
        return 1.0, None, [f"{name} must be an object or null, found {short(rope)}"]
    theta = rope.get("rope_theta", values.get("rope_theta", 10_000.0))
    scaling, wrong = read_scaling(rope, name)
    if old and new not in (None, {}, rope):
        wrong.append("rope_scaling and rope_parameters disagree")
    if values.get("rope_theta", theta) != theta:
        wrong.append(f"rope_theta and {name}.rope_theta disagree")
    if rope.get("partial_rotary_factor", 1) != 1:
        wrong.append(f"{name}.partial_rotary_factor must be 1")
    return theta, scaling, wrong


def read_fields(values: dict[str, Any]) -> dict[str, Any]:
    """ModelConfig's fields out of config.json's; ConfigError if wrong.

    What is absent is what HuggingFace takes it for.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"config.json must hold an object, found {short(values)}")
    wrong = [
        f"{name} must be {json.dumps(built[-1])}, not {short(values[name])}"
        for name, built in BUILT_VALUES.items()
        if values.get(name, built[0]) not in built
    ]
    theta, scaling, wrong_rope = read_rope(values)
    given = DEFAULTS | values
    given |= {"rope_theta": theta, "rope_scaling": scaling}
    if given.get("num_key_value_heads") is None:
        given["num_key_value_heads"] = given.get("num_attention_heads")
    if given.get("dtype") is None:
        given["dtype"] = given.get("torch_dtype")
    if isinstance(given["eos_token_id"], list):
        given["eos_token_id"] = tuple(given["eos_token_id"])
    derived = given.get("head_dim") is None
    if derived:
        given["head_dim"] = 2  # until its two sources are known
    wrong += wrong_rope + wrong_fields(ModelConfig, given)
    if derived and not wrong:
        width, heads = given["hidden_size"], given["num_attention_heads"]
        given["head_dim"] = width // heads
        if width % heads:
            wrong = [f"hidden_size {width} must be a multiple of {heads} heads"]
    if wrong:
        raise ConfigError("; ".join(wrong))
    return {field.name: given[field.name] for field in fields(ModelConfig)}


def read_file(path: str | PathLike, build: Callable[[dict], ModelConfig]) -> ModelConfig:
    """What `build` makes of config.json; ConfigError names the file."""
    file = Path(path) / "config.json"
    try:
        return build(json_file(file))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        if not os.path.isdir(path):
            found = f"checkpoint_path({Path(path).name!r})"
            why = f"{why}; by name, a checkpoint's folder is nanoserve.checkpoints.{found}"
        raise ConfigError(f"{file} cannot be read: {why}") from error
