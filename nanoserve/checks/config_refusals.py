"""What ModelConfig must refuse, each with the field named: Day 2."""

import json
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nanoserve.checks.common import attempt
from nanoserve.checks.config import FACTORS, ROPE_PARAMETERS, SCALING, SMALL
from nanoserve.checks.config_promises import check_promises
from nanoserve.config import ConfigError, ModelConfig

# Too near 0, not a number, or too large: HuggingFace fails at a whole number above 2**63.
NO_NUMBER = (0, -8, 9e-31, True, "8", [8], math.nan, math.inf, 2e18, 2**63)
NO_SIZE = (*NO_NUMBER, 1.5, 2**31)  # nor whole and within 31 bits

# Each of these alone makes SMALL wrong; None does where there is no default.
BAD_VALUES = {
    "vocab_size": (*NO_SIZE, None),
    "hidden_size": (*NO_SIZE, None, 50),  # no multiple of the 6 heads
    "intermediate_size": (*NO_SIZE, None),
    "num_hidden_layers": (*NO_SIZE, None, 10_001),
    "num_attention_heads": (*NO_SIZE, None),
    "num_key_value_heads": (*NO_SIZE, 4),  # no divisor of the 6 heads
    "head_dim": (*NO_SIZE, 7),
    "max_position_embeddings": (*NO_SIZE, None),
    "rms_norm_eps": NO_NUMBER,
    "rope_theta": NO_NUMBER,
    "tie_word_embeddings": (0, 1, "false", [], None),
    "bos_token_id": ("1", 1.0, True, [1]),
    "eos_token_id": ("2", 2.0, True, [], [None], [2, "3"], {"a": 2}),
    "dtype": (16, ["float16"]),
    # Not built.
    "model_type": ("mistral", ""),
    "hidden_act": ("gelu", ""),
    "attention_bias": (True,),
    "mlp_bias": (True,),
    "sliding_window": (64,),
    "quantization_config": ({"bits": 4},),
    "rope_interleaved": (True,),
    "partial_rotary_factor": (0.5,),
    "original_max_position_embeddings": (8192,),
    "transformers_weights": ("other.safetensors",),  # another file than ours would be read
    # No object.
    "rope_scaling": ("llama3",),
    "rope_parameters": ([1],),
}
BAD_ROPE_TYPES = ("yarn", "linear", "dynamic", "longrope", None)
COUNT = 225  # of the table below: none is lost unseen
ALL_AT_ONCE = {"hidden_act": "gelu", "vocab_size": 0, "rope_theta": -1}
BAD_TEXTS = ("", "{", "[1]", "[" * 100_000, json.dumps(SMALL | ALL_AT_ONCE))


def bad_scalings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of RoPE's numbers with something wrong, after the field that must be named."""
    for kind in BAD_ROPE_TYPES:
        yield "rope_type", {"rope_type": kind}
    for name in SCALING:
        for value in (None, 0, "8", 2**63):
            yield name, SCALING | {name: value}
    for name in FACTORS:
        yield name, {key: value for key, value in SCALING.items() if key != name}
    yield "low_freq_factor", SCALING | {"low_freq_factor": SCALING["high_freq_factor"]}
    yield "partial_rotary_factor", SCALING | {"partial_rotary_factor": 0.5}
    yield "rope_theta", SCALING | {"rope_theta": -1}


def bad_configs() -> Iterator[tuple[str, dict[str, Any]]]:
    """What to put into SMALL, after the field (or word) that the error must have."""
    for name, values in BAD_VALUES.items():
        for value in values:
            yield name, {name: value}
    for dialect in ("rope_scaling", "rope_parameters"):
        for name, rope in bad_scalings():
            yield name, {dialect: rope}
        yield "rope_theta", {dialect: ROPE_PARAMETERS, "rope_theta": 3e4}  # not the same
    yield "disagree", {"rope_scaling": SCALING, "rope_parameters": SCALING | {"factor": 32.0}}


def check_refusals() -> None:
    """Configs with one thing wrong, with three, that are no object; files that are no config."""
    table = list(bad_configs())
    if len(table) != COUNT:
        raise AssertionError(f"the table has {len(table)} configs to refuse, {COUNT} are wanted")
    for name, bad in table:
        must_refuse(f"A config with {bad}", [name], ModelConfig.from_dict, SMALL | bad)
    what = f"A config with three wrong fields, {ALL_AT_ONCE},"
    must_refuse(what, ALL_AT_ONCE, ModelConfig.from_dict, SMALL | ALL_AT_ONCE)
    for no_object in (None, [], "llama"):
        must_refuse(f"{no_object!r} for a dict", [], ModelConfig.from_dict, no_object)
    with tempfile.TemporaryDirectory() as name:
        check_folder(Path(name))


def must_refuse(what: str, named: Any, read: Callable, source: Any) -> None:
    """AssertionError unless `read(source)` raises ConfigError with all that is to be named."""
    wanted = f"must be a ConfigError that names {' and '.join(named) or 'what is wrong'}"
    try:
        got = read(source)
    except ConfigError as error:
        if any(name not in str(error) for name in named):
            raise AssertionError(f"{what} {wanted}. The error says: {error}") from None
    except NotImplementedError:  # a practice notebook's blank says so itself
        raise
    except Exception as error:
        raise AssertionError(f"{what} {wanted}. It was this: {error!r:.200}") from error
    else:
        raise AssertionError(f"{what} {wanted}. It was taken, and gave {got!r:.120}")


def check_folder(folder: Path) -> None:
    """No config.json and bad ones are refused; one that changed is read again."""
    file, read = folder / "config.json", ModelConfig.from_pretrained
    must_refuse("A folder without a config.json", [file.name], read, folder)
    call = "checkpoint_path('smollm2-135m')"
    what = "A checkpoint's name in place of its folder"
    must_refuse(what, [file.name, call], read, folder / "smollm2-135m")
    for text in BAD_TEXTS:
        file.write_text(text)
        must_refuse(f"A config.json that begins {text[:20]!r}", [file.name], read, folder)
    for layers in (3, 5):
        file.write_text(json.dumps(SMALL | {"num_hidden_layers": layers}))
        for source in (folder, str(folder)):
            kind = type(source).__name__
            config = attempt(f"from_pretrained, given a folder as a {kind}", read, source)
            if config.num_hidden_layers != layers:
                raise AssertionError(
                    f"config.json was written anew, with num_hidden_layers {layers}, and "
                    f"from_pretrained gave {config.num_hidden_layers}: it must read the file again."
                )
    check_promises(folder)
