"""What was reported of other servers, tried at ours. Each test names the report."""

import json

import pytest

from nanoserve.checks.engine_texts import checkpoint
from nanoserve.checks.server_local import served
from nanoserve.engine.engine import Engine

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
BODY = {"prompt": "x", "max_tokens": 6, "temperature": 0, "ignore_eos": True}
TALK = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 6, "temperature": 0}
FORMS = {TEXT: BODY, CHAT: TALK | {"ignore_eos": True}}


@pytest.fixture(scope="module")
def local():
    with checkpoint() as path, served(Engine(path, num_blocks=64)) as server:
        yield server
        assert server.http.get("/health").json() == {"healthy": True}
        assert server.engine.num_free_blocks == 64


def chunks(local, path: str, **asked) -> list[dict]:
    """What is in the events of a stream, without the last."""
    text = local.http.post(path, json=FORMS[path] | {"stream": True} | asked).text
    *events, done, nothing = text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def refusal(local, path: str, **asked) -> dict:
    answer = local.http.post(path, json=FORMS[path] | asked)
    assert answer.status_code == 400
    return answer.json()["error"]


@pytest.mark.parametrize("path", FORMS)
def test_a_usage_in_every_chunk(path, local):
    """guidellm asks for it: https://github.com/sgl-project/sglang/pull/12241

    It counts what was sent by then, of all choices: https://github.com/vllm-project/vllm/pull/9357
    """
    options = {"include_usage": True, "continuous_usage_stats": True}
    told = chunks(local, path, stream_options=options, n=2)
    whole = local.http.post(path, json=FORMS[path] | {"n": 2}).json()["usage"]
    written = [chunk["usage"]["completion_tokens"] for chunk in told]
    assert written == sorted(written) and written[0] <= 6 and written[-1] == 12
    for chunk in told:
        used = chunk["usage"]
        assert used["prompt_tokens"] == whole["prompt_tokens"]
        assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"]
    assert told[-1]["choices"] == [] and all(chunk["choices"] for chunk in told[:-1])


@pytest.mark.parametrize(
    ("options", "usages"),
    [
        (None, set()),
        ({}, set()),  # https://github.com/vllm-project/vllm/pull/36379
        ({"include_usage": False}, set()),
        ({"include_usage": True}, {None, "last"}),
        ({"include_usage": True, "continuous_usage_stats": False}, {None, "last"}),
    ],
)
def test_no_usage_that_was_not_asked_for(options, usages, local):
    told = chunks(local, TEXT, stream_options=options)
    found = {chunk["usage"] and "last" for chunk in told if "usage" in chunk}
    assert found == usages


def test_usage_in_every_chunk_needs_usage(local):
    error = refusal(local, TEXT, stream=True, stream_options={"continuous_usage_stats": True})
    assert error["param"] == "continuous_usage_stats"


@pytest.mark.parametrize("token", [2**15, 10**9, 2**63, 2**80])
def test_a_stop_id_outside_the_vocabulary(token, local):
    """With min_tokens it ended vLLM's engine: https://github.com/vllm-project/vllm/issues/54195"""
    for least in (0, 1):
        error = refusal(local, TEXT, stop_token_ids=[3, token], min_tokens=least)
        assert error["param"] == "stop_token_ids" and str(token) in error["message"]
    inside = BODY | {"stop_token_ids": [3, local.engine.model.config.vocab_size - 1]}
    assert local.http.post(TEXT, json=inside | {"min_tokens": 1}).status_code == 200


EXTREMES = [1e-300, 5e-324, 1e-38, 1e-6, 1e38]


@pytest.mark.parametrize(
    "name",
    ["temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty"],
)
def test_no_number_of_sampling_costs_anybody_an_answer(name, local):
    """Two in a row could end the engine: https://github.com/ggml-org/llama.cpp/issues/19367"""
    for value in EXTREMES:
        for _ in range(2):
            asked = BODY | {"prompt": [5] * 9, "temperature": 1} | {name: value}
            assert local.http.post(TEXT, json=asked).status_code in (200, 400)
            assert local.http.get("/health").json() == {"healthy": True}
