"""The texts of an engine that plans ahead, and their ends: Day 24."""

import codecs
from collections.abc import Callable
from dataclasses import replace

from nanoserve.checks.common import agree
from nanoserve.checks.kernels_ahead import ahead, beside, play
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams


class Letters:
    """A tokenizer on paper: every id is a letter."""

    def __init__(self):
        self.spelling = self

    def shows(self, token_id: int) -> bool:
        return True

    def called(self, names: tuple[str, ...]) -> tuple[int, ...]:
        return ()

    def bytes_of(self, token_id: int, first: bool) -> bytes:
        return bytes([ord("a") + token_id % 26])

    def characters(self) -> Callable:
        return codecs.getincrementaldecoder("utf-8")().decode


def check_texts(model: Llama) -> None:
    """Texts, cut at a stop string or before a stop id: at each step Day 16's engine's."""
    params = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)
    ids = play(beside(model), [("a", [7, 8], params)])["a"][-1].token_ids
    text = "".join(Letters().bytes_of(i, False).decode() for i in ids)
    ends = [{}, *({"stop": text[n : n + 2]} for n in (0, 2, 3))]
    for end in [*ends, *({"stop_token_ids": (ids[n],)} for n in (0, 2, 4))]:
        told = []
        for engine in (ahead(model), beside(model)):
            engine.tokenizer = Letters()
            outputs = play(engine, [("a", [7, 8], replace(params, **end)), ("b", [9], params)])
            told.append([(o.token_ids, o.text, o.finish_reason) for o in outputs["a"]])
        agree(f"told with {end or 'no stop'}", *told)
