"""A checkpoint's answers over HTTP, against LLM and against HuggingFace's model: Day 20."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
from torch import nn

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

MADE = "a made checkpoint"
TALK = [{"role": "user", "content": "What is the capital of France?"}]


def check_server() -> None:
    """All promises of the server, on a made checkpoint with a tokenizer."""
    with checkpoint() as path:
        llm = attempt("LLM", LLM, path, num_blocks=64)
        wanted = expected(llm)
        check_refusals(llm.engine)
        with served(llm.engine) as local:
            check_answers(local, wanted)
        check_hangups(Engine(path, num_blocks=64, max_num_seqs=1))


def compare_served(board: Scoreboard, path: Path) -> float:
    """Four prompts and a chat at once, whole and streamed; the smallest margin that was met."""
    theirs, llm = their_model(path), attempt("LLM", LLM, path, num_blocks=64)
    mix = [
        (ids, replace(p, ignore_eos=False))
        for ids, p in mix_of(path, llm.engine.model.config.vocab_size)[:4]
    ]
    right = llm.generate([ids for ids, _ in mix], [params for _, params in mix])
    talks = llm.engine.tokenizer is not None and llm.tokenizer.template is not None
    if talks:
        right += llm.chat(TALK, replace(mix[0][1], max_tokens=5))
    with served(llm.engine) as local:
        for stream in (False, True):
            got = attempt("answers at once", apart, ask_all(local, right, talks, stream))
            for i, (output, (ids, text, reason)) in enumerate(zip(right, got, strict=True)):
                name = f"request {i}, {'a stream' if stream else 'whole'}"
                agree(f"{name}: ids, as from LLM", ids, output.token_ids)
                agree(
                    f"{name}: text and reason", (text, reason), (output.text, output.finish_reason)
                )
                hold(board, path, theirs, name, output.prompt_token_ids, ids)
    return min(margin_of(theirs, output) for output in right)


def hold(
    board: Scoreboard, path: Path, theirs: nn.Module, name: str, prompt: list, ids: list
) -> None:
    """Each id against the best one of HuggingFace's scores behind those before it."""
    scores = steps_of(theirs, prompt, ids)
    board.compare(path, "ids over HTTP", name, *sure_ids(ids, scores.argmax(-1).tolist(), scores))


def margin_of(theirs: nn.Module, output: RequestOutput) -> float:
    """The smallest one between the best score and the next, in any step."""
    two = steps_of(theirs, output.prompt_token_ids, output.token_ids).topk(2).values
    return (two[:, 0] - two[:, 1]).min().item()


async def ask_all(local: Local, right: list[RequestOutput], talks: bool, stream: bool) -> list:
    """Of each request, at once: ids, text and reason; the last is a chat where there is one."""
    async with local.client(kind=openai.AsyncOpenAI) as client:

        async def one(output: RequestOutput, chat: bool) -> tuple[list[int], str, Any]:
            ids, text, reason = [], "", None
            said = {"model": MODEL, "temperature": 0, "max_tokens": len(output.token_ids)}
            said |= {"extra_body": {"return_token_ids": True}, "stream": stream}
            call = client.chat.completions if chat else client.completions
            said |= {"messages": TALK} if chat else {"prompt": output.prompt_token_ids}
            answer = await call.create(**said)
            if not stream:
                choice = answer.choices[0]
                said = choice.message.content if chat else choice.text
                return choice.token_ids, said, choice.finish_reason
            async for chunk in answer:
                choice = chunk.choices[0]
                ids += getattr(choice, "token_ids", None) or []
                text += (choice.delta.content if chat else choice.text) or ""
                reason = choice.finish_reason or reason
            return ids, text, reason

        last = len(right) - 1
        return await asyncio.gather(*(one(o, talks and i == last) for i, o in enumerate(right)))
