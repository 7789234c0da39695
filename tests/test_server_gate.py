"""What the door does with every request: keys, methods, slashes, encodings; errors that help."""

import gzip
import json

import pytest

from nanoserve.checks.engine_texts import checkpoint
from nanoserve.checks.server_local import served
from nanoserve.engine.engine import Engine
from nanoserve.server.gate import check_api_key

BODY = {"prompt": "x", "max_tokens": 1, "temperature": 0}
TALK = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
JSON = {"Content-Type": "application/json"}
KEY = "a key"


@pytest.fixture(scope="module")
def engine():
    with checkpoint() as path:
        yield Engine(path, num_blocks=64)


@pytest.fixture(scope="module")
def local(engine):
    with served(engine, api_key=KEY) as server:
        server.http.headers["Authorization"] = f"Bearer {KEY}"
        yield server


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/v1/models", "/v1/models/a-model"])
def test_head_is_get_without_a_body(path, local):
    """Monitors ask by HEAD whether a page is there."""
    head, get = local.http.head(path), local.http.get(path)
    assert head.status_code == get.status_code == 200 and head.content == b""
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


def test_head_of_what_is_only_posted_to(local):
    answer = local.http.head("/v1/completions")
    assert answer.status_code == 405 and answer.headers["Allow"] == "POST"


def test_a_slash_at_the_end_redirects_nobody(local):
    """A redirect goes to http:// behind a proxy that speaks https, and loses the key.

    https://github.com/fastapi/fastapi/issues/4990
    """
    for path in ("/v1/completions/", "/v1/completions//"):
        assert local.http.post(path, json=BODY).status_code == 200
    for path in ("/health/", "/v1/models/", "/v1/models/a-model/"):
        assert local.http.get(path).status_code == 200
    assert local.http.get("/v1/models/", headers={"Authorization": "none"}).status_code == 401


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  "])
def test_a_scheme_is_written_in_any_case(scheme, local):
    key = {"Authorization": f"{scheme} {KEY}"}
    assert local.http.get("/v1/models", headers=key).status_code == 200


@pytest.mark.parametrize("given", ["", KEY, "Basic " + KEY, "Bearer", "Bearer " + KEY + "s"])
def test_who_has_no_key_is_told_how_to_send_one(given, local):
    answer = local.http.get("/v1/models", headers={"Authorization": given})
    assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"


def test_an_empty_key_opens_no_door(engine):
    with served(engine, api_key="") as server:
        for given in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer x"}):
            assert server.http.get("/v1/models", headers=given).status_code == 401


@pytest.mark.parametrize("key", ["", " ", "a ", "\ta", "a\n", "a\0b"])
def test_a_key_that_nobody_can_send(key):
    with pytest.raises(ValueError, match="the API key"):
        check_api_key(key)


def test_keys_that_can_be_sent():
    for key in (None, "a", KEY, "clé"):
        check_api_key(key)


def test_a_body_that_is_packed(local):
    packed = gzip.compress(json.dumps(BODY).encode())
    headers = JSON | {"Content-Encoding": "gzip"}
    answer = local.http.post("/v1/completions", content=packed, headers=headers)
    error = answer.json()["error"]
    assert answer.status_code == 415 and error["message"].startswith("Content-Encoding gzip")
    headers["Content-Encoding"] = "identity"
    answer = local.http.post("/v1/completions", content=json.dumps(BODY), headers=headers)
    assert answer.status_code == 200


def refusal(local, path: str, body: dict | bytes) -> dict:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = local.http.post(path, content=data, headers=JSON)
    assert answer.status_code == 400
    return answer.json()["error"]


def test_a_body_that_is_no_unicode(local):
    error = refusal(local, "/v1/completions", b'{"prompt": "\xff"}')
    assert error["message"] == "the body is no JSON in UTF-8"


@pytest.mark.parametrize("name", ["", "str", "int", "list[int]", "a.b"])
def test_a_field_of_any_name_is_refused_by_it(name, local):
    error = refusal(local, "/v1/completions", BODY | {name: 1})
    assert error["param"] == name and "there is no such field" in error["message"]


@pytest.mark.parametrize("prompt", [5, {}, [1, "a"], ["a", 1], [[1], "a"], [[[1]]], [1.0], [None]])
def test_a_prompt_of_no_kind(prompt, local):
    error = refusal(local, "/v1/completions", {"prompt": prompt})
    assert error["param"] == "prompt" and error["message"].startswith("prompt: is no text, no ids")


def test_the_call_of_a_tool_is_what_is_refused_of_it(local):
    """Not that it has no content, which is right for a call."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    told = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None}]
    told[1]["tool_calls"] = [call]
    error = refusal(local, "/v1/chat/completions", {"messages": told})
    assert error["param"] == "messages.1.tool_calls"


def test_a_chat_has_all_that_openais_schema_requires(local):
    """Clients check it: https://github.com/JamePeng/llama-cpp-python/issues/113"""
    for n, stream in ((1, False), (2, False), (1, True)):
        asked = TALK | {"logprobs": True, "n": n, "stream": stream}
        text = local.http.post("/v1/chat/completions", json=asked).text
        frames = text.split("\n\n")[:-2] if stream else ["data: " + text]
        for frame in frames:
            answer = json.loads(frame.removeprefix("data: "))
            assert {"id", "choices", "created", "model", "object"} <= answer.keys()
            for choice in answer["choices"]:
                assert {"index", "finish_reason", "logprobs"} <= choice.keys()
                if choice["logprobs"]:
                    assert choice["logprobs"].keys() == {"content", "refusal"}
                if not stream:
                    assert choice["message"].keys() == {"role", "content", "refusal"}
