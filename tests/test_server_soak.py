"""A server that 500 clients ask, a third of whom hang up: nothing of them is left."""

import asyncio
import gc
import json
import random
import threading
from pathlib import Path

import pytest
from tiny import save_tiny

from nanoserve.checks.load_texts import MODEL, serving
from nanoserve.checks.metrics_numbers import read
from nanoserve.engine.engine import Engine
from nanoserve.engine.llm import LLM
from nanoserve.engine.request import Request, RequestOutput
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams
from nanoserve.server.answer import Answer

ROUNDS, EACH, AT_ONCE = 5, 100, 24
MOST = 12  # tokens of an answer, at most
LEAK = 20e6  # bytes in three rounds: allocators keep some
OBJECTS = 100  # in three rounds of a hundred: it is 0, and 300 or more if each leaves one


def asked(draw: random.Random) -> dict:
    """What a client asks, and when it goes: None, or after so many events or turns of the loop."""
    prompt = [draw.randint(0, 96) for _ in range(draw.choice((1, 3, 16, 17, 40)))]
    body = {"model": MODEL, "prompt": prompt, "max_tokens": draw.randint(2, MOST)}
    body |= {"temperature": 0, "ignore_eos": True, "return_token_ids": True}
    body["stream"] = draw.random() < 0.7
    return {"body": body, "leaves": draw.randint(0, MOST) if draw.random() < 1 / 3 else None}


async def client(port: int, body: dict, leaves: int | None, reset: bool) -> list[int] | None:
    """The ids of an answer; None for who has hung up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    head += f"Connection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    try:
        writer.write(head.encode() + data)
        if leaves is None:
            answer = (await reader.read()).decode()
            assert answer.startswith("HTTP/1.1 200"), answer[:300]
            return ids_of(answer, body["stream"])
        for _ in range(leaves):  # a stream is read for so long, any other is left to itself
            await (reader.readline() if body["stream"] else asyncio.sleep(0.001))
        return None
    finally:
        writer.transport.abort() if reset else writer.close()


def ids_of(answer: str, stream: bool) -> list[int]:
    """The ids in an answer's body."""
    if not stream:
        return json.loads(answer[answer.index("{") : answer.rindex("}") + 1])["choices"][0][
            "token_ids"
        ]
    events = [line[6:] for line in answer.splitlines() if line.startswith("data: {")]
    return [
        i
        for e in events
        for choice in json.loads(e)["choices"]
        for i in choice.get("token_ids", [])
    ]


def held() -> int:
    """The anonymous memory of this process, in bytes; 0 where nobody says."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    return int(status.read_text().split("RssAnon:")[1].split()[0]) * 1024


@pytest.mark.parametrize("seed", [0])
def test_nothing_is_left_of_500_clients(tmp_path, seed):
    save_tiny(tmp_path)
    # A Llama, not a path: oneDNN, which comes with that, keeps something of every new shape.
    model = Llama.from_pretrained(tmp_path)
    engine = Engine(model, num_blocks=40, max_num_seqs=8, max_num_batched_tokens=48)
    draw, told, memory, objects = random.Random(seed), [], [], []

    async def main():
        async with serving(engine) as url:
            port, some = int(url.rpartition(":")[2]), asyncio.Semaphore(AT_ONCE)
            tasks = len(asyncio.all_tasks())

            async def one(who):
                async with some:
                    return await client(port, who["body"], who["leaves"], draw.random() < 0.5)

            for _ in range(ROUNDS):
                clients = [asked(draw) for _ in range(EACH)]
                answers = await asyncio.gather(*map(one, clients))
                # As texts, which the collector does not count.
                told.extend(map(json.dumps, zip(clients, answers, strict=True)))
                del clients, answers
                await idle(port)
                gc.collect()
                memory.append(held())
                objects.append(len(gc.get_objects()))
                assert engine.num_free_blocks == 40
                kinds = {type(x) for x in gc.get_objects()}
                left = kinds & {Request, RequestOutput, Answer}
                assert not left, left
            await settled(tasks)
            return await metrics(port)

    before = threading.active_count()
    found = read(asyncio.run(asyncio.wait_for(main(), 300)))
    assert threading.active_count() == before
    engine.audit()
    assert not engine.has_unfinished() and not engine.texts and not engine.aborted
    assert memory[-1] - memory[1] < LEAK, [f"{m / 1e6:.1f}" for m in memory]
    assert objects[-1] - objects[1] < OBJECTS, objects
    told = [json.loads(text) for text in told]
    gone = sum(who["leaves"] is not None for who, _ in told)
    assert len(told) == 500 and 130 < gone < 210
    stayed = [(who["body"], ids) for who, ids in told if ids is not None]
    assert len(stayed) == 500 - gone
    ends = {r: found[f"request_success_total {r}"] for r in ("stop", "length", "abort", "error")}
    assert ends["length"] >= len(stayed) and ends["stop"] == ends["error"] == 0
    assert ends["abort"] > 20 and sum(ends.values()) <= 500
    prompts = [body["prompt"] for body, _ in stayed]
    params = [
        SamplingParams(temperature=0, max_tokens=body["max_tokens"], ignore_eos=True)
        for body, _ in stayed
    ]
    alone = LLM(model).generate(prompts, params)
    assert [ids for _, ids in stayed] == [output.token_ids for output in alone]


async def metrics(port: int) -> str:
    """What /metrics says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    answer = (await reader.read()).decode()
    writer.close()
    return answer.partition("\r\n\r\n")[2]


async def settled(tasks: int) -> None:
    """Until no more tasks than that are there: the last connection's may still be at its end."""
    for _ in range(2000):
        if len(asyncio.all_tasks()) <= tasks:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(asyncio.all_tasks())


async def idle(port: int) -> None:
    """Until the server has noticed everybody who has gone."""
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    for _ in range(2000):
        found = read(await metrics(port))
        if not any(found[name] for name in names):
            return
        await asyncio.sleep(0.01)
    raise AssertionError({name: found[name] for name in names})
