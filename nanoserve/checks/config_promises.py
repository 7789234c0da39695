"""What the docstrings of ModelConfig promise beside its numbers: Day 2."""

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

from nanoserve.checks.common import attempt, must_raise
from nanoserve.checks.config import SCALING, SMALL
from nanoserve.config import ConfigError, ModelConfig

IMPOSSIBLE = {"head_dim": 7, "num_key_value_heads": 4, "num_hidden_layers": 10_001}


def check_promises(folder: Path) -> None:
    """Each of them, with `folder` for a config.json of our own."""
    values = SMALL | {"eos_token_id": [3, 5], "rope_scaling": SCALING}
    config = attempt("from_dict", ModelConfig.from_dict, values)
    check_numbers_fit(config)
    check_nothing_changes(config)
    (folder / "config.json").write_text(json.dumps(values))
    own = type("Own", (ModelConfig,), {})
    for read, source in (("from_dict", values), ("from_pretrained", folder)):
        what = f"{read} of a subclass of ModelConfig"
        got = attempt(what, getattr(own, read), source)
        if type(got) is not own:
            raise AssertionError(
                f"{what} gave a {type(got).__name__}, and must give an object of the class that "
                "it was called on."
            )


def check_numbers_fit(config: ModelConfig) -> None:
    """A config that is made or altered in code is refused like one that is read."""
    for name, value in IMPOSSIBLE.items():
        what = f"a ModelConfig of {config.num_attention_heads} heads altered to {name}={value}"
        told = must_raise(ConfigError, what, replace, config, **{name: value})
        if name not in told:
            raise AssertionError(f"{what}: the error must name {name}, and says: {told}")
    what = "kv_cache_bytes_per_token('float16'), given a name in place of a torch.dtype"
    must_raise(TypeError, what, config.kv_cache_bytes_per_token, "float16")


def check_nothing_changes(config: ModelConfig) -> None:
    """Both dataclasses are frozen and can be keys; tensor_shapes gives a dict of its own."""
    for part, name in ((config, "head_dim"), (config.rope_scaling, "factor")):
        kind = type(part).__name__
        what = f"setting {name} of a {kind}, which is to be frozen"
        must_raise(FrozenInstanceError, what, setattr, part, name, 8)
        attempt(f"hash() of a {kind}, all fields of which are to be immutable", hash, part)
    config.tensor_shapes().clear()
    if not config.tensor_shapes():
        raise AssertionError(
            "The dict that tensor_shapes() gave was emptied, and then its next one was empty too: "
            "each call must make its own."
        )
