"""The server beside its own engine: the part "server" of bench.py."""

import asyncio
import json
import re
import selectors
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

from nanoserve.commands.serve import SPINS

CONTESTANTS = ("engine", "thread", "http")
# Of a contestant's process, where the one who measures has set nothing else.
ENVIRONMENT = {"thread": {"GOMP_SPINCOUNT": SPINS}}  # "http" sets it itself
REQUESTS, PROMPT, NEW = 32, 32, 64  # at once; tokens read, and written, of each
ASK = 0.05  # seconds between two questions to /health


def requests() -> list:
    """Seeded prompts of one length: what differs is HTTP, and not the work."""
    import random

    from nanoserve.bench.workloads import TOKENS, Turn

    drawn = random.Random(0)
    ids = [tuple(drawn.randint(0, TOKENS) for _ in range(PROMPT)) for _ in range(REQUESTS)]
    return [(Turn(one, NEW),) for one in ids]


def measure_server(mode: str, path: str) -> dict:
    """New tokens a second, all requests at once; over HTTP, what /health takes meanwhile too."""
    return over_http(path) if mode == "http" else by_the_engine(mode, path)


def by_the_engine(mode: str, path: str) -> dict:
    """No server. As "thread" it is loaded and stepped as a server's is, and there is no HTTP.

    In two threads, that is, of which only the one that steps has a team of OpenMP's workers, and
    with workers that spin as briefly.
    """
    from nanoserve.bench.clock import time_engine
    from nanoserve.engine.engine import Engine
    from nanoserve.server.run import alone

    with alone() if mode == "thread" else nullcontext():
        engine = Engine(path, max_num_seqs=REQUESTS)
    asked = requests()

    def work():
        time_engine(engine, asked[:1], 0.0, lambda new: None)  # warm
        return time_engine(engine, asked, 0.0, lambda new: None)

    run = ThreadPoolExecutor(1).submit(work).result() if mode == "thread" else work()
    return {"rate": run.rate, "ids": [ids for (ids,) in run.answers]}


def over_http(path: str) -> dict:
    """A server in a process of its own, as people run it; its clients do next to nothing."""
    from nanoserve.bench.load import body_of, percentile

    command = [sys.executable, "-m", "nanoserve", "serve", path, "--port", "0"]
    command += ["--max-num-seqs", str(REQUESTS)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        url, model = address(server), Path(path).name
        bodies = [body_of(model, turn.ids, turn.new, temperature=0) for (turn,) in requests()]
        ask(url, bodies[:1])  # warm
        seconds, answers = ask(url, bodies)
        with Health(url) as health:
            ask(url, bodies)
    finally:
        server.terminate()
        server.wait(60)
    ids = [*map(ids_of, answers)]
    waits = {"health_p50": percentile(health.waits, 50), "health_p99": percentile(health.waits, 99)}
    return {"rate": sum(map(len, ids)) / seconds, "ids": ids} | waits


def ask(url: str, bodies: list[dict]) -> tuple[float, list[bytes]]:
    """Ask all at once: the seconds until the last is answered, and what came, as it came.

    An HTTP library and json take three times the processor's time that the server takes for it,
    and here they would take it from the server.
    """
    host, _, port = url.removeprefix("http://").partition(":")
    waits, found = selectors.DefaultSelector(), [bytearray() for _ in bodies]
    start = time.perf_counter()
    for body, answer in zip(bodies, found, strict=True):
        there, data = socket.create_connection((host, int(port))), json.dumps(body).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        there.sendall(head.encode() + data)
        waits.register(there, selectors.EVENT_READ, answer)
    while waits.get_map():
        for key, _ in waits.select():
            if data := key.fileobj.recv(2**16):
                key.data.extend(data)
            else:
                waits.unregister(key.fileobj)
                key.fileobj.close()
    return time.perf_counter() - start, [bytes(answer) for answer in found]


def ids_of(answer: bytes) -> list[int]:
    """The ids of a stream. ValueError where it was cut short, or refused."""
    events = [line[6:] for line in answer.splitlines() if line.startswith(b"data: ")]
    if not events or events[-1] != b"[DONE]":
        raise ValueError(f"no whole answer: {answer[:300]}")
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    return [i for choice in choices for i in choice.get("token_ids", [])]


def address(server: subprocess.Popen) -> str:
    """Where it says that it listens. Its further words are read, and dropped."""
    for line in server.stderr:
        if found := re.search(r"http://[\w.:]+", line):
            threading.Thread(target=server.stderr.read, daemon=True).start()
            return found[0]
    raise RuntimeError(f"the server has ended: {server.wait()}")


class Health:
    """Asks /health every ASK seconds while the block runs, whether or not it has been answered.

    `waits` has the seconds of each, from when it was due: one that is late makes no other late.
    """

    def __init__(self, url: str):
        self.url, self.waits, self.done = url, [], threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.ask()), daemon=True)

    async def ask(self) -> None:
        import httpx

        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=60) as client:
            await client.get("/health")
            due, asked = time.perf_counter(), []
            while not self.done.is_set():
                asked.append(asyncio.ensure_future(self.one(client, due)))
                due += ASK
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await asyncio.gather(*asked)

    async def one(self, client, due: float) -> None:
        """A question, and how long its answer took."""
        (await client.get("/health")).raise_for_status()
        self.waits.append(time.perf_counter() - due)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def bench_server(turns, rounds: int, path: Path) -> dict:
    """All contestants in turns; they must write the same."""
    found = turns("server", CONTESTANTS, rounds, path)
    right = found["engine"]["ids"][0]
    for name, fields in found.items():
        same = [sum(a == b for a, b in zip(run, right, strict=True)) for run in fields.pop("ids")]
        if min(same) < REQUESTS:
            print(f"{name}: of {REQUESTS} texts {same} are those of the engine")
    return found


def rows(results: dict, row):
    """Its rows in the table."""
    if "server" in results:
        found = results["server"]
        yield row(f"the server, {REQUESTS} requests at once", found, "rate", "tokens/s", 1)
        http = {"http": found["http"]}
        for name in ("p50", "p99"):
            yield row(f"the server, /health meanwhile, {name}", http, f"health_{name}", "ms", 1e3)
