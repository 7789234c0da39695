"""`nanoserve serve`: an engine behind an address."""

import argparse
import os

from nanoserve.checkpoints.catalog import DEFAULT
from nanoserve.commands.common import add_engine, engine_settings


def add(commands) -> None:
    """The arguments of `nanoserve serve`."""
    about = "answer OpenAI's clients over HTTP, and people in a browser"
    parser = commands.add_parser("serve", help=about, description=about)
    parser.set_defaults(run=run)
    about = f"a name or a folder; default {DEFAULT}"
    parser.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help=about)
    about = "the address to listen at; default 127.0.0.1, which nobody else can reach"
    parser.add_argument("--host", default="127.0.0.1", help=about)
    about = "0 takes any that is free; default 8000"
    parser.add_argument("--port", type=int, default=8000, help=about)
    about = "who does not send it gets no answer; default NANOSERVE_API_KEY, where that is set"
    parser.add_argument("--api-key", default=os.environ.get("NANOSERVE_API_KEY"), help=about)
    about = "requests that may wait; one more is told to come back later; default 64"
    parser.add_argument("--max-waiting", type=int, default=64, help=about)
    add_engine(parser)


# How often GNU's OpenMP looks for more work before a thread sleeps. Its own 300,000 keep the cores
# from everybody else: beside four busy programs on two cores, 13 tokens a second, and 36 with this.
# With 1,000 it sleeps between two products: on a quiet machine a sixth of the tokens is lost.
SPINS = "5000"


def spin_briefly() -> None:
    """Before torch is imported, which is when OpenMP reads it. What the user has set stays."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def run(args: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises ValueError, CheckpointError too."""
    spin_briefly()
    from nanoserve.server.run import serve

    settings = engine_settings(args)
    where = args.host, args.port, args.api_key, args.max_waiting, args.device
    serve(args.checkpoint, *where, settings)
