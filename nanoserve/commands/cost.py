"""`nanoserve cost`: what this machine can do, and its tokens a second."""

import argparse

from nanoserve.checkpoints import checkpoint_path
from nanoserve.checkpoints.catalog import DEFAULT


def add(commands) -> None:
    """The arguments of `nanoserve cost`."""
    about = "measure this machine, and predict its tokens a second"
    parser = commands.add_parser("cost", help=about, description=about)
    parser.set_defaults(run=run)
    parser.add_argument("--checkpoint", help=f"a name or a folder; default {DEFAULT}")
    parser.add_argument("--context", type=int, default=256, help="tokens a text; default 256")


def run(args: argparse.Namespace) -> None:
    """Print each line when it is known. Raises CheckpointError, ValueError."""
    from nanoserve.forecast import forecast

    for line in forecast(checkpoint_path(args.checkpoint), args.context):
        print(line, flush=True)
