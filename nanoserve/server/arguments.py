"""The arguments of `nanoserve serve`. What it needs is imported when it runs."""

import argparse
import os

from nanoserve.checkpoints.catalog import DEFAULT

COUNTS = {
    "block-size": "tokens in a block of the pool; default 16",
    "num-blocks": "blocks in the pool; default as many as half a gigabyte holds",
    "max-num-seqs": "requests that run at once; default 16",
    "max-num-batched-tokens": "tokens that a step reads at most; default 512",
}


def add_serve(commands) -> None:
    """The arguments of `nanoserve serve`."""
    about = "answer OpenAI's clients over HTTP, and people in a browser"
    parser = commands.add_parser("serve", help=about, description=about)
    parser.set_defaults(run=run_serve, extra="server")
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
    for name, what in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, default=argparse.SUPPRESS, help=what)
    about = "keep the keys and values of beginnings that prompts share"
    kind = argparse.BooleanOptionalAction
    parser.add_argument(
        "--enable-prefix-caching", action=kind, default=argparse.SUPPRESS, help=about
    )


def run_serve(args: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises ValueError, CheckpointError too."""
    from nanoserve.server.run import serve

    names = (*COUNTS, "enable-prefix-caching")
    given = {name.replace("-", "_") for name in names} & vars(args).keys()
    settings = {name: getattr(args, name) for name in given}
    serve(args.checkpoint, args.host, args.port, args.api_key, args.max_waiting, settings)
