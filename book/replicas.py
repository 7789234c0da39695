"""Two replicas of our server behind Ray Serve; one of them is killed.

    pip install "ray[serve]"
    python book/replicas.py

Ray routes, and starts anew what has died; with more machines in its
cluster the replicas spread over them. The book does without it.
"""

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import ray
from openai import APIError, OpenAI
from ray import serve

from nanoserve.checkpoints import DEFAULT, checkpoint_path
from nanoserve.engine.engine import Engine
from nanoserve.server.app import create_app


def replica():
    """Called in each replica's process: an engine, the app around it."""
    app = create_app(Engine(checkpoint_path(DEFAULT)), DEFAULT)

    async def signed(scope, receive, send):  # says which process answers
        async def sign(message):
            if message["type"] == "http.response.start":
                me = b"x-process", str(os.getpid()).encode()
                message["headers"].append(me)
            await send(message)

        await app(scope, receive, sign)

    return signed


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 1})
@serve.ingress(replica)
class Replica:
    """One of them; what it answers, the app answers."""


def ask(client: OpenAI, seen: list[int], i: int) -> str:
    """Stream an answer: whole, or cut. `seen` gets whose it is."""
    asked = {"model": DEFAULT, "prompt": f"{i} and one are"}
    asked |= {"max_tokens": 16, "temperature": 0, "stream": True}
    chunks = 0
    try:
        answer = client.completions.with_raw_response.create(**asked)
        seen.append(int(answer.headers["x-process"]))
        for chunk in answer.parse():
            chunks += bool(chunk.choices)
        return "whole" if chunk.choices[0].finish_reason else "cut off"
    except APIError as error:
        return f"{type(error).__name__} after {chunks} chunks"


if __name__ == "__main__":
    ray.init(include_dashboard=False)
    serve.run(Replica.bind())
    url = "http://127.0.0.1:8000/v1"
    client, seen = OpenAI(base_url=url, api_key="none", max_retries=0), []
    for kills in (False, True, False, False):
        before = len(seen)
        with ThreadPoolExecutor(4) as pool:
            answers = pool.map(partial(ask, client, seen), range(16))
            while kills and len(seen) < before + 6:
                time.sleep(0.01)
            if kills:
                os.kill(seen[-1], signal.SIGKILL)
            print(*map(Counter, (answers, seen[before:])), flush=True)
