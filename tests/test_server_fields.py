"""Every field of OpenAI's API is read or refused by its name, and no body gives a 500 or a hang."""

import json
import typing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params

from nanoserve.checks.engine_texts import checkpoint
from nanoserve.checks.server_local import Local, served
from nanoserve.engine.engine import Engine
from nanoserve.server.protocol import OFF, ChatRequest, CompletionRequest, Message, is_off

TALK = [{"role": "user", "content": "x"}]
FORMS = {
    "/v1/completions": (CompletionRequest, {"prompt": "x", "max_tokens": 1}),
    "/v1/chat/completions": (ChatRequest, {"messages": TALK, "max_tokens": 1}),
}
ADDRESSES = sorted(FORMS)


@pytest.fixture(scope="module")
def local():
    with checkpoint() as path, served(Engine(path, num_blocks=64)) as server:
        yield server
        assert server.engine.num_free_blocks == 64


def post(local: Local, path: str, body) -> tuple[int, dict]:
    """Status and answer; what is no 200 is in OpenAI's shape, and no 500."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = local.http.post(path, content=data, headers={"Content-Type": "application/json"})
    if answer.status_code == 200:
        return 200, {}
    assert 400 <= answer.status_code < 500, (answer.text, body)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return answer.status_code, error


@pytest.mark.parametrize("path", ADDRESSES)
def test_each_field_of_openai_is_known(path):
    module = completion_create_params if path == "/v1/completions" else chat_create_params
    base = next(v for k, v in vars(module).items() if k.endswith("CreateParamsBase"))
    theirs = {*typing.get_type_hints(base, include_extras=True), "stream"}
    assert len(theirs) > 15
    assert theirs - {*FORMS[path][0].model_fields, *OFF} == set()


@pytest.mark.parametrize("name", sorted(OFF))
@pytest.mark.parametrize("path", ADDRESSES)
def test_what_is_not_built_is_refused_by_its_name_and_may_be_off(path, name, local):
    _, body = FORMS[path]
    status, error = post(local, path, body | {name: {"on": "please"}})
    assert (status, error["param"]) == (400, name) and name in error["message"]
    for off in (None, *OFF[name]):
        assert post(local, path, body | {name: off})[0] == 200


def test_no_field_is_both_read_and_off():
    for form in (CompletionRequest, ChatRequest, Message):
        assert not OFF.keys() & form.model_fields.keys()
    assert is_off("store", False) and not is_off("store", 0) and not is_off("nothing", None)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from(["", "\ud800", "\u2028", "user", "x" * 300, 2**63, -1, 0, 1e308]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
messages = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.one_of(st.sampled_from(["system", "user", "assistant", "tool"]), values),
            "content": st.one_of(
                st.text(max_size=20),
                st.lists(st.dictionaries(st.sampled_from(["type", "text"]), values, max_size=2)),
                values,
            ),
            "name": values,
        },
    ),
    max_size=3,
)


@st.composite
def bodies(draw, path: str) -> dict:
    """A body that is right but for some of its fields, which are anything."""
    form, body = FORMS[path]
    names = st.sampled_from([*form.model_fields, *OFF, "unknown", "a.b", "\ud800"])
    odd = draw(st.dictionaries(names, values, max_size=4))
    if path != "/v1/completions" and draw(st.booleans()):
        odd["messages"] = draw(messages)
    return body | odd


@pytest.mark.parametrize("path", ADDRESSES)
def test_no_body_gives_a_500_or_a_hang(path, local):
    @settings(max_examples=200, suppress_health_check=list(HealthCheck))
    @given(bodies(path))
    def check(body):
        post(local, path, body)

    check()
    assert local.http.get("/health").json() == {"healthy": True}


def test_no_bytes_give_a_500_or_a_hang(local):
    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.binary(max_size=60), values.map(lambda v: json.dumps(v).encode())))
    def check(body):
        assert post(local, "/v1/completions", body)[0] == 400

    check()


def test_a_deep_body_is_refused(local):
    for body in (b"[" * 50_000, b'{"prompt":' * 20_000, b'{"a":' + b"9" * 6000 + b"}"):
        assert post(local, "/v1/completions", body)[0] == 400
