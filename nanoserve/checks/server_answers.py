"""Answers over HTTP on a made checkpoint: whole, streamed, and those of LLM are one. Day 20."""

import asyncio
from dataclasses import fields, replace
from typing import Any

import openai

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.engine_texts import PROMPTS
from nanoserve.checks.server_heard import streamed, whole
from nanoserve.checks.server_local import MODEL, Local, apart
from nanoserve.checks.server_logprobs import check_logprobs
from nanoserve.engine.llm import LLM
from nanoserve.engine.request import RequestOutput
from nanoserve.sampling import SamplingParams

NEW = 10
GREEDY = SamplingParams(temperature=0, max_tokens=NEW)
SAID: dict[str, Any] = {  # every field of SamplingParams, as nobody has it by default
    "temperature": 0.9,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.01,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.3,
    "frequency_penalty": 0.2,
    "seed": 11,
    "max_tokens": 13,
    "min_tokens": 2,
    "stop": ["~~", "##"],
    "stop_token_ids": [3],
    "ignore_eos": True,
}
OPENAI = {*SAID} & {"temperature", "top_p", "presence_penalty", "frequency_penalty", "seed"}
OPENAI |= {"max_tokens", "stop"}


def wire(params: SamplingParams) -> dict[str, Any]:
    """The params as the official client sends them: what it does not know is in extra_body."""
    told = {f.name: getattr(params, f.name) for f in fields(params) if f.name != "logprobs"}
    told = {k: list(v) if isinstance(v, tuple) else v for k, v in told.items()}
    known = {k: v for k, v in told.items() if k in OPENAI and v is not None and v != []}
    return known | {"extra_body": {k: v for k, v in told.items() if k not in OPENAI}}


def expected(llm: LLM) -> dict[str, list[RequestOutput]]:
    """What the engine says without a server; it is still the LLM's."""
    free = replace(GREEDY, logprobs=2)
    cut = llm.generate(PROMPTS[0], GREEDY)[0].text[2:5]
    talk = [{"role": "system", "content": "be brief"}, {"role": "user", "content": PROMPTS[0]}]
    long = replace(GREEDY, max_tokens=9, logprobs=2)
    drawn = [replace(GREEDY, temperature=1.0, seed=5 + i) for i in range(2)]
    return {
        "texts": llm.generate(PROMPTS, free),
        "stopped": llm.generate(PROMPTS[0], replace(GREEDY, stop=(cut,))),
        "chat": llm.chat(talk, long),
        "drawn": llm.generate([PROMPTS[1]] * 2, drawn),
        "cut": [cut],
        "talk": talk,
    }


def check_answers(local: Local, wanted: dict[str, Any]) -> None:
    """Both addresses, whole and streamed, through the official client."""
    client = local.client()
    attempt("models", lambda: agree("models", [m.id for m in client.models.list()], [MODEL]))
    agree("one model", attempt("models.retrieve", client.models.retrieve, MODEL).id, MODEL)
    check_fields(local, client)
    check_headers(local)
    check_chat(client, wanted["talk"], wanted["chat"][0])
    check_completions(client, wanted)
    check_logprobs(client, wanted["texts"])
    apart(check_together(local, wanted["texts"]))


def check_fields(local: Local, client: openai.OpenAI) -> None:
    """Every field reaches the engine as it was said, under either address; and what is not said."""
    heard, plain = [], local.engine.add_request

    def add_request(name: str, ids: Any, params: SamplingParams) -> None:
        heard.append(params)
        plain(name, ids, params)

    local.engine.add_request = add_request
    body, ends = SamplingParams(**SAID), local.engine.tokenizer.turn_ends()
    talk = [{"role": "user", "content": "x"}]
    said = wire(body)
    attempt("every field", lambda: client.completions.create(model=MODEL, prompt="x", **said))
    attempt(
        "every field", lambda: client.chat.completions.create(model=MODEL, messages=talk, **said)
    )
    agree("params of a completion", heard[0], body)
    agree("params of a chat", heard[1], body)
    short = {"stop": "~~~", "max_tokens": 1}
    attempt("two answers", lambda: client.completions.create(model=MODEL, prompt="x", n=2, **short))
    said = {"max_completion_tokens": 2, "messages": talk}
    attempt("a chat", lambda: client.chat.completions.create(model=MODEL, **said))
    agree("a completion's params", heard[2:4], [SamplingParams(max_tokens=1, stop="~~~")] * 2)
    agree("a chat's", heard[4], SamplingParams(max_tokens=2, stop_token_ids=ends))
    for i, body in enumerate(
        ({"prompt": "x"}, {"messages": talk, "stop": ["e", "t", "a", "o"]}), 5
    ):
        path = "/v1/completions" if i == 5 else "/v1/chat/completions"
        attempt("defaults", local.http.post, path, json=body)
        agree("max_tokens where none is said", heard[i].max_tokens, 16 if i == 5 else None)
    del local.engine.add_request


def check_headers(local: Local) -> None:
    """A stream says that it is one, and that nobody on the way may keep any of it back."""
    body = {"prompt": "x", "max_tokens": 1, "stream": True}
    headers = local.http.post("/v1/completions", json=body).headers
    agree("type of a stream", headers["content-type"].partition(";")[0], "text/event-stream")
    agree("Cache-Control", headers.get("cache-control"), "no-cache")
    agree("X-Accel-Buffering", headers.get("x-accel-buffering"), "no")


def check_chat(client: openai.OpenAI, talk: list, right: RequestOutput) -> None:
    """A conversation, whole and streamed, its content a text or parts."""
    call, said = client.chat.completions, {"temperature": 0, "max_tokens": 9}
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in talk]
    more = [{"type": "text", "text": line} for line in ("be", "brief")]
    lines = [{**talk[0], "content": "be\nbrief"}, talk[1]]
    both = [{**talk[0], "content": more}, talk[1]]
    prompts = [
        whole(call, messages=m, max_tokens=1, extra_body={"return_token_ids": True})
        for m in (lines, both)
    ]
    agree("parts are lines", prompts[1].prompt_token_ids, prompts[0].prompt_token_ids)
    developer = [{**talk[0], "role": "developer"}, talk[1]]
    for what, messages in (("a chat", talk), ("parts", parts), ("a developer", developer)):
        ids = {"extra_body": {"return_token_ids": True}}
        answer = whole(call, messages=messages, **said, **ids)
        choice, usage = answer.choices[0], answer.usage
        agree(f"{what}: text", choice.message.content, right.text)
        agree(f"{what}: role", choice.message.role, "assistant")
        holds(f"{what}: a refusal, or null", "refusal" in choice.message.model_fields_set)
        agree(f"{what}: reason", choice.finish_reason, right.finish_reason)
        agree(f"{what}: ids", choice.token_ids, right.token_ids)
        agree(f"{what}: ids of the prompt", answer.prompt_token_ids, right.prompt_token_ids)
        mine = usage.prompt_tokens, usage.completion_tokens, usage.total_tokens
        read, wrote = len(right.prompt_token_ids), len(right.token_ids)
        agree(f"{what}: usage", mine, (read, wrote, read + wrote))
    heard = streamed(call, messages=talk, **said)
    agree("a streamed chat", (heard.texts[0], heard.reasons[0]), (right.text, right.finish_reason))
    agree("its role, once", heard.roles, ["assistant"])
    agree("its usage", heard.usage.completion_tokens, len(right.token_ids))


def check_completions(client: openai.OpenAI, wanted: dict[str, Any]) -> None:
    """Several prompts, texts and ids; two answers to a seed; a stop text."""
    call, texts, said = client.completions, wanted["texts"], {"temperature": 0, "max_tokens": NEW}
    ids, right = [o.prompt_token_ids for o in texts], [(o.text, o.finish_reason) for o in texts]
    for what, prompts in (("texts", list(PROMPTS)), ("ids", ids)):
        answer = whole(call, prompt=prompts, **said)
        got = [(c.text, c.finish_reason) for c in answer.choices]
        agree(f"answers to {what}", got, right)
        agree(f"their indices, of {what}", [c.index for c in answer.choices], [*range(len(ids))])
        agree(f"usage of {what}", answer.usage.prompt_tokens, sum(map(len, ids)))
    twice = [c.text for c in whole(call, prompt=ids[:2], n=2, **said).choices]
    agree(
        "two answers to each of two prompts", twice, [text for text, _ in right[:2] for _ in "ab"]
    )
    heard = streamed(call, 3, prompt=ids[:3], **said)
    agree("three streams", list(zip(heard.texts, heard.reasons, strict=True)), right[:3])
    agree("their usage", heard.usage.prompt_tokens, sum(map(len, ids[:3])))
    drawn = [o.text for o in wanted["drawn"]]
    said = {"prompt": PROMPTS[1], "n": 2, "seed": 5, "max_tokens": NEW}
    agree("two answers to one seed", [c.text for c in whole(call, **said).choices], drawn)
    agree("the same as streams", streamed(call, 2, **said).texts, drawn)
    cut, right = wanted["cut"][0], wanted["stopped"][0]
    said = {"prompt": PROMPTS[0], "stop": cut, "temperature": 0, "max_tokens": NEW}
    heard = streamed(call, **said)
    agree("a stopped stream", (heard.texts[0], heard.reasons[0]), (right.text, "stop"))


async def check_together(local: Local, outputs: list[RequestOutput]) -> None:
    """Many at once, every other one a stream: each gets its own."""
    async with local.client(kind=openai.AsyncOpenAI) as client:

        async def one(i: int) -> str:
            said = {"prompt": PROMPTS[i], "temperature": 0, "max_tokens": NEW, "model": MODEL}
            if i % 2:
                return (await client.completions.create(**said)).choices[0].text
            stream = await client.completions.create(**said, stream=True)
            return "".join([chunk.choices[0].text async for chunk in stream])

        order = [i % len(PROMPTS) for i in range(12)]
        got = await asyncio.gather(*map(one, order))
    agree("twelve at once", list(got), [outputs[i].text for i in order])
