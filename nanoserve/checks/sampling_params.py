"""What SamplingParams has and what it refuses: Day 9."""

import math
from dataclasses import FrozenInstanceError, asdict

from nanoserve.checks.common import agree, attempt, holds, must_raise
from nanoserve.sampling import SamplingParams

DEFAULTS = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "seed": None,
    "max_tokens": 16,
    "min_tokens": 0,
    "stop": (),
    "stop_token_ids": (),
    "ignore_eos": False,
    "logprobs": None,
}
NO_NUMBER = (True, "1", math.nan, math.inf, -math.inf, [1])
BAD = {
    "temperature": (*NO_NUMBER, None, -0.1, 10**400),
    "top_k": (*NO_NUMBER, None, -2, 1.0),
    "top_p": (*NO_NUMBER[1:], None, 0, 0.0, -0.1, 1.0001, True),
    "min_p": (*NO_NUMBER, None, -0.1, 1.0001),
    "repetition_penalty": (*NO_NUMBER, None, 0, 0.0, -1.0, 1e-38, 1e-300, 1e30),
    "presence_penalty": (*NO_NUMBER, None, -2.1, 2.1),
    "frequency_penalty": (*NO_NUMBER, None, -2.1, 2.1),
    "seed": (*NO_NUMBER, 1.0, 2**63, -(2**63) - 1),
    "max_tokens": (*NO_NUMBER, 0, -1, 8.0),
    "min_tokens": (*NO_NUMBER, None, -1, 1.0, 17),
    "stop": (None, 5, "", ("a", ""), (1,), {"a": 1}),
    "stop_token_ids": (None, 5, "12", (1.0,), (True,), (3, -1), ("2",)),
    "ignore_eos": (0, 1, None, "yes"),
    "logprobs": (*NO_NUMBER, -1, 1.0),
}
GOOD = {
    "temperature": (0, 0.0, 5, 1e-30),
    "top_k": (-1, 0, 1, 10**9),
    "top_p": (1, 1e-9),
    "min_p": (0, 1),
    "repetition_penalty": (1, 0.1, 1e-6, 9.0),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "seed": (None, 0, -1, 2**63 - 1, -(2**63)),
    "max_tokens": (None, 1, 10**6),
    "min_tokens": (0, 16),
    "logprobs": (None, 0, 20),
}


def check_params() -> None:
    """Names and defaults are vLLM's; what is wrong is refused by name; nothing changes later."""
    agree("the fields and their defaults", asdict(SamplingParams()), DEFAULTS)
    for name, values in BAD.items():
        for value in values:
            said = must_raise(ValueError, f"{name}={value!r:.20}", SamplingParams, **{name: value})
            holds(f"the refusal of {name}={value!r:.20} must name it", name in said, said[:80])
    said = must_raise(ValueError, "two bad fields", SamplingParams, top_k=-9, seed="x")
    holds("both bad fields must be named", "top_k" in said and "seed" in said, said)
    for name, values in GOOD.items():
        for value in values:
            params = attempt(f"{name}={value!r}", SamplingParams, **{name: value})
            agree(f"{name} as it was given", getattr(params, name), value)
    ids = [7, 0]
    params = SamplingParams(stop="end", stop_token_ids=ids)
    ids.append(9)
    agree("stop and stop_token_ids", (params.stop, params.stop_token_ids), (("end",), (7, 0)))
    agree("stop from a list", SamplingParams(stop=["a", "b"]).stop, ("a", "b"))
    must_raise(FrozenInstanceError, "changing a field", setattr, params, "seed", 1)
    agree("params in a set", len({params, SamplingParams(stop=["end"], stop_token_ids=[7, 0])}), 1)
