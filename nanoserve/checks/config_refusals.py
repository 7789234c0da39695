"""What ModelConfig must refuse, each with the field named: Day 2."""

import json
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nanoserve.checks.common import agree, attempt
from nanoserve.checks.config import FACTORS, ROPE_PARAMETERS, SCALING, SMALL
from nanoserve.config import ConfigError, ModelConfig

NO_NUMBER = (0, -8, True, "8", [8], math.nan, math.inf)  # none is finite and above 0
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
    "max_position_embeddings": NO_SIZE,
    "rms_norm_eps": NO_NUMBER,
    "rope_theta": NO_NUMBER,
    "tie_word_embeddings": (0, 1, "false", []),
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
    # No object.
    "rope_scaling": ("llama3",),
    "rope_parameters": ([1],),
}
BAD_ROPE_TYPES = ("yarn", "linear", "dynamic", "longrope", None)
ALL_AT_ONCE = {"hidden_act": "gelu", "vocab_size": 0, "rope_theta": -1}
BAD_TEXTS = ("", "{", "[1]", "[" * 100_000, json.dumps(SMALL | ALL_AT_ONCE))


def bad_scalings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of RoPE's numbers with something wrong, after the field that must be named."""
    for kind in BAD_ROPE_TYPES:
        yield "rope_type", {"rope_type": kind}
    for name in SCALING:
        for value in (None, 0, "8"):
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
    agree("configs to refuse", len(table), 169)
    for name, bad in table:
        must_refuse(bad, [name], ModelConfig.from_dict, SMALL | bad)
    must_refuse("all at once", ALL_AT_ONCE, ModelConfig.from_dict, SMALL | ALL_AT_ONCE)
    for no_object in (None, [], "llama"):
        must_refuse(no_object, [], ModelConfig.from_dict, no_object)
    with tempfile.TemporaryDirectory() as name:
        check_folder(Path(name))


def must_refuse(what: Any, named: Any, read: Callable, source: Any) -> None:
    """AssertionError unless `read(source)` raises ConfigError with all that is to be named."""
    try:
        got = read(source)
    except ConfigError as error:
        missing = [name for name in named if name not in str(error)]
        if missing:
            raise AssertionError(f"{what}: {missing} not named in {error}") from None
    except NotImplementedError:  # a practice notebook's blank says so itself
        raise
    except Exception as error:
        raise AssertionError(f"{what}: no ConfigError but {error!r:.200}") from error
    else:
        raise AssertionError(f"{what}: taken for {got!r:.200}")


def check_folder(folder: Path) -> None:
    """No config.json and bad ones are refused; one that changed is read again."""
    file = folder / "config.json"
    must_refuse("no file", [file.name], ModelConfig.from_pretrained, folder)
    for text in BAD_TEXTS:
        file.write_text(text)
        what = f"a file of {text!r:.20}"
        must_refuse(what, [file.name], ModelConfig.from_pretrained, folder)
    for layers in (3, 5):
        file.write_text(json.dumps(SMALL | {"num_hidden_layers": layers}))
        config = attempt("a folder", ModelConfig.from_pretrained, folder)
        agree("layers of the file as it is now", config.num_hidden_layers, layers)
        by_text = attempt("a folder's name", ModelConfig.from_pretrained, str(folder))
        agree("a folder given as a str", by_text, config)
