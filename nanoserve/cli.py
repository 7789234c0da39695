"""The command `nanoserve`, which is `python -m nanoserve` too.

A subcommand is a function here that adds its arguments and one that runs it. What a subcommand
needs is imported when it runs.
"""

import argparse
import os
import sys

from nanoserve import __version__
from nanoserve.checkpoints import CheckpointError, weights_dir
from nanoserve.checkpoints.catalog import CATALOG, DEFAULT, TWIN
from nanoserve.checkpoints.places import command


def say(text: str) -> None:
    """Tell the user, beside what the command prints."""
    print(text, file=sys.stderr, flush=True)


def add_download(commands) -> None:
    """The arguments of `nanoserve download`."""
    about = "put a checkpoint into weights/, whole or not at all"
    parser = commands.add_parser("download", help=about, description=about)
    parser.set_defaults(run=run_download)
    parser.add_argument("name", nargs="?", help=f"one of {', '.join(CATALOG)}; default {DEFAULT}")
    parser.add_argument("--full", action="store_true", help=f"{TWIN} with all its 16 layers")
    parser.add_argument("--list", action="store_true", help="what there is, and what is on disk")
    parser.add_argument("--verify", action="store_true", help="read every file and check its hash")


def run_download(args: argparse.Namespace) -> None:
    """Fetch, list or verify. Raises CheckpointError."""
    from nanoserve.checkpoints.download import download, resolve
    from nanoserve.checkpoints.ondisk import show, verify
    from nanoserve.checkpoints.staging import read_stamp

    if args.list:
        show()
    elif args.verify:
        name = resolve(args.name, args.full)
        if problems := verify(name):
            again = f"`{command('download', name)}` makes it anew"
            raise CheckpointError("\n  ".join([f"{name} is damaged; {again}:", *problems]))
        if CATALOG[name].pinned or read_stamp(weights_dir() / name):
            print(f"{name}: every file is as it should be")
        else:  # put there by hand, and no hash of its bytes is known
            print(f"{name}: the headers are sound; nothing is known of the bytes")
    else:
        path = download(args.name, args.full)
        print(f"{path.name} is complete: {path}")


def main(argv: list[str] | None = None) -> int:
    """Run the command. 0: all is well, 1: it is not, 2: wrong arguments, 130: interrupted."""
    if hasattr(sys.stdout, "reconfigure"):  # not so within a notebook
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may have letters that it lacks
    parser = argparse.ArgumentParser(prog="nanoserve", description="LLM inference, from a book.")
    parser.add_argument("--version", action="version", version=f"nanoserve {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_download(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except CheckpointError as error:
        say(f"error: {error}")
        return 1
    except BrokenPipeError:  # `--list | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a file that cannot be read while it is listed or verified
        say(f"error: {error.filename or weights_dir()} cannot be read ({error.strerror or error})")
        return 1
    except KeyboardInterrupt:
        say("interrupted: nothing half made was left under the checkpoint's name")
        return 130
    return 0
