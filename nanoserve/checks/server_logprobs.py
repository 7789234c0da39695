"""Logprobs in both shapes, whole and streamed: each the chosen token's own. Day 20."""

from typing import Any

import openai

from nanoserve.checks.common import agree, holds
from nanoserve.checks.engine_texts import PROMPTS
from nanoserve.checks.server_heard import near, streamed, whole
from nanoserve.engine.request import RequestOutput


def check_logprobs(client: openai.OpenAI, outputs: list[RequestOutput]) -> None:
    """Of two completions and a chat."""
    for prompt, right in zip(PROMPTS[:2], outputs, strict=False):
        check_completion(client.completions, prompt, right)
    # Drawn at a high temperature, the chosen token is seldom among the likeliest.
    said = {"prompt": PROMPTS[0], "temperature": 2, "seed": 1, "max_tokens": 8, "logprobs": 1}
    told = whole(client.completions, **said).choices[0].logprobs
    rows = zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True)
    for name, logprob, likely in rows:
        agree(f"the chosen {name!r} beside the likeliest", likely.get(name), logprob)
    holds("one of them must not be the likeliest", any(len(row) > 1 for row in told.top_logprobs))
    for top in (0, 2):
        check_chat(client.chat.completions, top)


def check_completion(call: Any, prompt: str, right: RequestOutput) -> None:
    """Four lists, as long as the ids; a token that is shown stands where its offset says."""
    said = {"prompt": prompt, "temperature": 0, "max_tokens": len(right.token_ids), "logprobs": 2}
    rows = zip(right.token_ids, right.logprobs, strict=True)
    chosen = [row[token].logprob for token, row in rows]
    choice = whole(call, **said).choices[0]
    told = choice.logprobs
    holds("logprobs must be there where they were asked for", told is not None)
    near("logprobs of a completion", told.token_logprobs, chosen)
    near("its stream's", streamed(call, **said).logprobs[0], chosen)
    for k, row in enumerate(right.logprobs):
        likely, wanted = told.top_logprobs[k], sorted(p.logprob for p in row.values())
        near(f"the likeliest in place {k}", sorted(likely.values()), wanted)
        name, at = told.tokens[k], told.text_offset[k]
        agree(f"the chosen one among them, in place {k}", likely.get(name), told.token_logprobs[k])
        shown = name.startswith(("bytes:", "<|")) or choice.text[at:].startswith(name)
        holds(f"token {k}, {name!r}, must stand at {at} of the text", shown, choice.text)


def check_chat(call: Any, top: int) -> None:
    """An entry for each token, with its bytes, and with as many others as were asked for."""
    talk = [{"role": "user", "content": PROMPTS[0]}]
    said = {"messages": talk, "logprobs": True, "temperature": 0, "max_tokens": 9}
    said |= {"top_logprobs": top} if top else {}
    answer = whole(call, **said)
    choice = answer.choices[0]
    holds("logprobs must be there where they were asked for", choice.logprobs is not None)
    told = choice.logprobs.content
    agree("entries", len(told), answer.usage.completion_tokens)
    agree("likeliest of each", {len(entry.top_logprobs) for entry in told}, {top})
    data = b"".join(bytes(entry.bytes) for entry in told if not entry.token.startswith("<|"))
    agree("their bytes together", data.decode("utf-8", "replace"), choice.message.content)
    firsts = [entry.top_logprobs[0].token == entry.token for entry in told if top]
    holds("without a temperature the chosen token is the likeliest", all(firsts))
    heard = streamed(call, **said).logprobs[0]
    agree("tokens of the stream", [e.token for e in heard], [e.token for e in told])
    near("logprobs of the stream", [e.logprob for e in heard], [e.logprob for e in told])
