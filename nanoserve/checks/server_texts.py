"""A checkpoint's answers over HTTP, against HuggingFace's model: Day 20."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import openai

from nanoserve.checks.common import agree, attempt
from nanoserve.checks.engine_texts import checkpoint
from nanoserve.checks.generating import sure_ids, their_model
from nanoserve.checks.model import VARIANTS, make
from nanoserve.checks.server_answers import check_answers, expected
from nanoserve.checks.server_hangups import check_hangups
from nanoserve.checks.server_local import MODEL, Local, apart, served
from nanoserve.checks.server_refusals import check_refusals
from nanoserve.checks.serving_mix import mix_of, steps_of
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.engine.engine import Engine
from nanoserve.engine.llm import LLM

NEW = 3
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


def compare_made(board: Scoreboard) -> float:
    """Two prompts of ids on a made checkpoint, that has no tokenizer."""
    theirs = make(VARIANTS[0] | {"max_position_embeddings": 64})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MADE_UP
        theirs.save_pretrained(path)
        return compare_served(board, path)


def compare_served(board: Scoreboard, path: Path) -> float:
    """A prompt and a streamed chat at once; the smallest margin that was met.

    Without a tokenizer they are two prompts, each whole and streamed.
    """
    theirs, engine = their_model(path), attempt("Engine", Engine, path, num_blocks=64)
    prompts = [ids for ids, _ in mix_of(path, theirs.config.vocab_size)[:2]]
    text_of, ends = engine.tokenizer, ()
    talks = text_of is not None and text_of.template is not None
    if talks:
        prompts[1], ends = text_of.chat(TALK), text_of.turn_ends()
    with served(engine) as local:
        asked = [(0, False), (1, True)] + ([] if talks else [(0, True), (1, False)])
        got = attempt("answers at once", apart, ask_all(local, prompts, talks, asked))
    margins, known = [], {}
    shown = None if path.name == MADE_UP else path
    for (i, stream), (ids, text, reason) in got.items():
        name = f"request {i}, {'a stream' if stream else 'whole'}"
        if (i, tuple(ids)) not in known:
            known[i, tuple(ids)] = steps_of(theirs, prompts[i], ids)
        scores = known[i, tuple(ids)]
        two = scores.topk(2).values
        margins.append((two[:, 0] - two[:, 1]).min().item())
        best = scores.argmax(-1).tolist()
        board.compare(shown, "ids over HTTP", name, *sure_ids(ids, best, scores))
        agree(f"{name}: text", text, "" if text_of is None else text_of.decode(ids))
        if i == 1 and ids[-1] in ends:
            agree(f"{name}: reason", reason, "stop")
        else:
            agree(f"{name}: reason, how many", (reason, len(ids)), ("length", NEW))
    return min(margins)


async def ask_all(
    local: Local, prompts: list[list[int]], talks: bool, asked: list[tuple[int, bool]]
) -> dict[tuple, tuple]:
    """Of each prompt, whole or as a stream, all at once: ids, text, reason.

    With `talks` the last prompt is the chat's.
    """
    async with local.client(kind=openai.AsyncOpenAI) as client:

        async def one(i: int, stream: bool) -> tuple[list[int], str, Any]:
            chat = talks and i == len(prompts) - 1
            more = {"return_token_ids": True, "ignore_eos": True, "stop_token_ids": []}
            said = {"model": MODEL, "temperature": 0, "max_tokens": NEW}
            said |= {"extra_body": more, "stream": stream}
            call = client.chat.completions if chat else client.completions
            said |= {"messages": TALK} if chat else {"prompt": prompts[i]}
            answer = await call.create(**said)
            if not stream:
                choice = answer.choices[0]
                around = answer if chat else choice
                agree("ids of the prompt", around.prompt_token_ids, prompts[i])
                whole = choice.message.content if chat else choice.text
                return choice.token_ids, whole, choice.finish_reason
            ids, text, reason = [], "", None
            async for chunk in answer:
                choice = chunk.choices[0]
                ids += getattr(choice, "token_ids", None) or []
                text += (choice.delta.content if chat else choice.text) or ""
                reason = choice.finish_reason or reason
            return ids, text, reason

        answers = await asyncio.gather(*(one(*each) for each in asked))
    return dict(zip(asked, answers, strict=True))
