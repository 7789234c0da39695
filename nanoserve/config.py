"""What config.json says about a model, read strictly.

Built in the book: day02. Edit there, then run book/tangle.py.
"""

import json
import math
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from reprlib import repr as short
from typing import Any

import torch

from nanoserve.checkpoints.strictjson import json_file


class ConfigError(ValueError):
    """A config.json that cannot be read, or asks for what is not built."""


# Fields that would change the mathematics, and the values that are built.
BUILT_VALUES = {  # absent means the first
    "model_type": ("llama",),
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "sliding_window": (None,),
    "quantization_config": (None,),
    "rope_interleaved": (False,),
    "partial_rotary_factor": (None, 1),
    "original_max_position_embeddings": (None,),  # is in rope_scaling
}

# What HuggingFace's Llama takes where a file is silent; old files are.
DEFAULTS = {
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}

CHECKS = {
    int: ("a whole number from 1 to 2147483647", lambda v: type(v) is int and 0 < v < 2**31),
    float: ("a positive number", lambda v: type(v) in (int, float) and 0 < v < 1e30),
    bool: ("true or false", lambda v: type(v) is bool),
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
    names = [field.name for field in fields(RopeScaling)]
    return RopeScaling(**{key: rope.get(key) for key in names}), wrong


def read_rope(values: dict[str, Any]) -> tuple[Any, RopeScaling | None, list[str]]:
    """rope_theta, the scaling, and what is wrong, from either dialect."""
    old, new = values.get("rope_scaling"), values.get("rope_parameters")
    name = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
    rope = values.get(name) or {}
    if not isinstance(rope, dict):
        return 1.0, None, [f"{name} must be an object or null, found {short(rope)}"]
    if old and new not in (None, {}, rope):
        return 1.0, None, ["rope_scaling and rope_parameters disagree"]
    theta = rope.get("rope_theta", values.get("rope_theta", 10_000.0))
    scaling, wrong = read_scaling(rope, name)
    if values.get("rope_theta", theta) != theta:
        wrong.append(f"rope_theta and {name}.rope_theta disagree")
    if rope.get("partial_rotary_factor", 1) != 1:
        wrong.append(f"{name}.partial_rotary_factor must be 1")
    return theta, scaling, wrong


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and constants of a Llama, under config.json's own names.

    Day 2 says what each is for. ConfigError where they contradict each
    other. `dtype` is the file's, as config.json spells it.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool
    rope_scaling: RopeScaling | None = None
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    dtype: str | None = None

    def __post_init__(self):
        heads = self.num_attention_heads
        kv_heads, layers = self.num_key_value_heads, self.num_hidden_layers
        if heads % kv_heads:
            raise ConfigError(f"num_key_value_heads {kv_heads} must divide the {heads} heads")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim {self.head_dim} must be even: RoPE turns pairs")
        if layers > 10_000:
            raise ConfigError(f"num_hidden_layers {layers} is past belief")

    @classmethod
    def from_pretrained(cls, path: str | PathLike) -> "ModelConfig":
        """Read config.json in folder `path`; ConfigError if that fails."""
        file = Path(path) / "config.json"
        try:
            return cls.from_dict(json_file(file))
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None
        except (OSError, ValueError, RecursionError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"{file} cannot be read: {why}") from error

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Take config.json's fields; ConfigError naming each bad one."""
        return read_config(values)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, by its name in the checkpoint."""
        C, F, D = self.hidden_size, self.intermediate_size, self.head_dim
        q_size = self.num_attention_heads * D
        kv_size = self.num_key_value_heads * D
        layer = {
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
            shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
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
        per_layer = 2 * self.num_key_value_heads * self.head_dim
        return self.num_hidden_layers * per_layer * dtype.itemsize


def wrong_names(values: dict[str, Any]) -> list[str]:
    """What is wrong with fields that name a token or a dtype."""
    wrong = []
    for field in ("bos_token_id", "eos_token_id"):
        ids = values.get(field)
        several = field[0] == "e" and isinstance(ids, list) and ids
        for found in ids if several else [ids]:
            if type(found) is not int and (several or found is not None):
                wrong.append(f"{field} must be a whole number, not {short(found)}")
    for field in ("dtype", "torch_dtype"):
        if not isinstance(values.get(field), str | None):
            wrong.append(f"{field} must be a name, not {short(values[field])}")
    return wrong


def read_config(values: dict[str, Any]) -> ModelConfig:
    """config.json's fields, checked, with HuggingFace's defaults."""
    if not isinstance(values, dict):
        raise ConfigError(f"config.json must hold an object, found {short(values)}")
    wrong = [
        f"{name} must be {json.dumps(built[-1])}, not {short(values[name])}"
        for name, built in BUILT_VALUES.items()
        if values.get(name, built[0]) not in built
    ]
    theta, scaling, wrong_rope = read_rope(values)
    given = {k: value for k, value in values.items() if value is not None}
    given = DEFAULTS | given | {"rope_theta": theta, "rope_scaling": scaling}
    given.setdefault("num_key_value_heads", given.get("num_attention_heads"))
    derived = {} if "head_dim" in given else {"head_dim": 2}  # for now
    wrong += wrong_rope + wrong_names(values)
    wrong += wrong_fields(ModelConfig, given | derived)
    if not wrong and derived:  # its two sources are known to be whole
        width, heads = given["hidden_size"], given["num_attention_heads"]
        given["head_dim"] = width // heads
        if width % heads:
            wrong.append(f"hidden_size {width} must be a multiple of the {heads} heads")
    if wrong:
        raise ConfigError("; ".join(wrong))
    eos = values.get("eos_token_id", 2)
    given["bos_token_id"] = values.get("bos_token_id", 1)
    given["eos_token_id"] = tuple(eos) if isinstance(eos, list) else eos
    given["dtype"] = values.get("dtype") or values.get("torch_dtype")
    return ModelConfig(**{field.name: given.get(field.name) for field in fields(ModelConfig)})
