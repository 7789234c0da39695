"""The server as a process: its socket, its signals, its end."""

import asyncio
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
import uvicorn

from nanoserve.checkpoints import checkpoint_path
from nanoserve.engine.llm import engine_on
from nanoserve.server.app import create_app
from nanoserve.server.gate import check_api_key
from nanoserve.server.heads import Heads
from nanoserve.server.worker import AsyncEngine

GRACE = 30.0  # seconds that requests have to end once the server is told to
KEEP_ALIVE = 75  # longer than clients keep a connection: it is they who close it


class Server(uvicorn.Server):
    """uvicorn's, in which the engine takes part in the end.

    On SIGTERM or Ctrl-C nobody new is let in. Who is being answered has GRACE seconds; then the
    engine ends their requests and tells them so. A second Ctrl-C does not wait.
    """

    def __init__(self, config: uvicorn.Config, worker: AsyncEngine, ready: str):
        super().__init__(config)
        self.worker, self.ready = worker, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self.ready, file=sys.stderr, flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ending = asyncio.ensure_future(self.worker.stop(GRACE))
        await super().shutdown(sockets)
        if self.force_exit:
            ending.cancel()
            await self.worker.stop(0)
        else:
            await ending


def bound(host: str, port: int) -> socket.socket:
    """A socket at that address. ValueError where it cannot be had."""
    if not 0 <= port < 2**16:  # getaddrinfo would take the rest of a division
        raise ValueError(f"cannot listen at {host}, port {port}: ports are from 0 to 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as held:
            listener = held.enter_context(socket.socket(family, kind))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            held.pop_all()  # the caller's, from here on
    except OSError as error:
        why = error.strerror or error
        raise ValueError(f"cannot listen at {host}, port {port}: {why}") from None
    return listener


@contextmanager
def alone() -> Iterator[None]:
    """torch works in one thread within the block, and in as many as before after it.

    OpenMP keeps a team of workers for every thread that has ever shared out work. The engine is
    stepped in a thread of its own: had this one a team too, there would be more threads than
    cores. GNU's then send all workers to sleep between two products, and a fifth of the tokens
    is lost to waking them.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def serve(
    checkpoint: str | None,
    host: str,
    port: int,
    api_key: str | None,
    max_waiting: int,
    device: str,
    settings: dict[str, Any],
) -> None:
    """Serve a checkpoint until the process is told to end. ValueError before any work."""
    check_api_key(api_key)
    listener = bound(host, port)  # before the weights are read, which takes its time
    path = checkpoint_path(checkpoint)
    # On a GPU it is not the processor's threads that step, and more of them load faster.
    with alone() if device.startswith("cpu") else nullcontext():
        engine = engine_on(device)(path, **settings)
    app = create_app(engine, path.name, api_key=api_key, max_waiting=max_waiting)
    port, name = listener.getsockname()[1], f"[{host}]" if ":" in host else host
    ready = f"{path.name}: http://{name}:{port}/ to chat, http://{name}:{port}/v1 for clients"
    config = uvicorn.Config(
        app,
        http=Heads,
        ws="none",
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(GRACE) + 5,
    )
    Server(config, app.state.worker, f"{ready}; Ctrl-C ends it").run([listener])
