"""A checkpoint's answers over HTTP, against LLM and against HuggingFace's model: Day 20."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import torch

from nanoserve.checks.common import agree, attempt
from nanoserve.checks.engine_texts import checkpoint
from nanoserve.checks.generating import sure_ids, their_model
from nanoserve.checks.server_answers import check_answers, expected
from nanoserve.checks.server_hangups import check_hangups
from nanoserve.checks.server_local import MODEL, Local, apart, served
from nanoserve.checks.server_refusals import check_refusals
from nanoserve.checks.serving_mix import mix_of, steps_of
from nanoserve.comparison import Scoreboard
from nanoserve.engine.engine import Engine
from nanoserve.engine.llm import LLM
from nanoserve.engine.request import RequestOutput

TALK = [{"role": "user", "content": "What is the capital of France?"}]


def check_server() -> None:
    """All promises of the server, on a made checkpoint with a tokenizer."""
    with checkpoint() as path:
        llm = attempt("LLM", LLM, path, num_blocks=64)
        check_refusals(llm.engine)
        check_hangups(Engine(path, num_blocks=64, max_num_seqs=1))
        wanted = expected(llm)
        with served(llm.engine) as local:
            check_answers(local, wanted)


def compare_served(board: Scoreboard, path: Path) -> float:
    """Two prompts and a chat at once, whole and streamed; the smallest margin that was met."""
    theirs, llm = their_model(path), attempt("LLM", LLM, path, num_blocks=64)
    mix = mix_of(path, theirs.config.vocab_size)[:2]
    right = llm.generate([ids for ids, _ in mix], [params for _, params in mix])
    talks = llm.engine.tokenizer is not None and llm.tokenizer.template is not None
    if talks:
        right += llm.chat(TALK, replace(mix[0][1], ignore_eos=False, max_tokens=5))
    scores = [steps_of(theirs, each.prompt_token_ids, each.token_ids) for each in right]
    with served(llm.engine) as local:
        got = attempt("answers at once", apart, ask_all(local, right, talks))
    for (i, stream), (ids, text, reason) in got.items():
        name, output = f"request {i}, {'a stream' if stream else 'whole'}", right[i]
        agree(f"{name}: ids, as from LLM", ids, output.token_ids)
        agree(f"{name}: text and reason", (text, reason), (output.text, output.finish_reason))
        best = scores[i].argmax(-1).tolist()
        board.compare(path, "ids over HTTP", name, *sure_ids(ids, best, scores[i]))
    two = torch.cat([each.topk(2).values for each in scores])
    return (two[:, 0] - two[:, 1]).min().item()


async def ask_all(local: Local, right: list[RequestOutput], talks: bool) -> dict[tuple, tuple]:
    """Of each request, whole and as a stream, all at once: ids, text, reason.

    With `talks` the last one is the chat.
    """
    async with local.client(kind=openai.AsyncOpenAI) as client:

        async def one(i: int, stream: bool) -> tuple[list[int], str, Any]:
            chat, output = talks and i == len(right) - 1, right[i]
            said = {"model": MODEL, "temperature": 0, "max_tokens": len(output.token_ids)}
            said |= {"extra_body": {"return_token_ids": True}, "stream": stream}
            call = client.chat.completions if chat else client.completions
            said |= {"messages": TALK} if chat else {"prompt": output.prompt_token_ids}
            answer = await call.create(**said)
            if not stream:
                choice = answer.choices[0]
                whole = choice.message.content if chat else choice.text
                return choice.token_ids, whole, choice.finish_reason
            ids, text, reason = [], "", None
            async for chunk in answer:
                choice = chunk.choices[0]
                ids += getattr(choice, "token_ids", None) or []
                text += (choice.delta.content if chat else choice.text) or ""
                reason = choice.finish_reason or reason
            return ids, text, reason

        asked = [(i, stream) for i in range(len(right)) for stream in (False, True)]
        answers = await asyncio.gather(*(one(*each) for each in asked))
    return dict(zip(asked, answers, strict=True))
