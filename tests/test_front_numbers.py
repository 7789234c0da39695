"""The numbers on the first pages are those of the committed measurement."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("page", ["README.md", "book/index.md"])
def test_numbers_of_the_gpu(page):
    text = " ".join((ROOT / page).read_text("utf-8").split())
    found = json.loads((ROOT / "book/bench-gpu-h200.json").read_text("utf-8"))

    def rate(runs: list[dict]) -> str:
        later = runs[1:]  # the first one warms up, as on Day 26
        tokens = found["engine"]["nano-vllm"][0]["new"]
        return f"{round(tokens * len(later) / sum(run['seconds'] for run in later), -2):,.0f}"

    ours, theirs = rate(found["engine"]["nano-vllm"]), rate(found["vllm"]["nano-vllm"])
    assert f"{ours} tokens a second of nano-vllm's workload, where vLLM has {theirs} in" in text
    assert f"a token of one text in {found['one text']['ms']['512']['few']:.2f} ms" in text
    assert "H200" in text and "H200" in found["machine"]["card"]
