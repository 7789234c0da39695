"""The command `nanoserve`, which is `python -m nanoserve` too: the subcommands are in commands/."""

import argparse
import os
import sys

from nanoserve import __version__
from nanoserve.checkpoints import weights_dir
from nanoserve.commands import bench, chat, cost, download, generate, serve
from nanoserve.commands.common import say

COMMANDS = (download, generate, chat, serve, bench, cost)
# The extra that brings a package, as pyproject.toml has them, where it is another than text.
EXTRAS = {"transformers": "reference", "triton": "gpu"}
EXTRAS |= dict.fromkeys(("tqdm", "huggingface_hub", "gguf", "numpy"), "download")
SERVER = ("fastapi", "starlette", "pydantic", "uvicorn", "httptools", "prometheus_client", "httpx")
EXTRAS |= dict.fromkeys(SERVER, "server")


def main(argv: list[str] | None = None) -> int:
    """Run the command. 0: all is well, 1: it is not, 2: wrong arguments, 130: interrupted."""
    if hasattr(sys.stdout, "reconfigure"):  # not so within a notebook
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may have letters that it lacks
    parser = argparse.ArgumentParser(prog="nanoserve", description="LLM inference, from a book.")
    parser.add_argument("--version", action="version", version=f"nanoserve {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except ValueError as error:  # CheckpointError is one
        say(f"error: {error}")
        return 1
    except ImportError as error:
        extra = EXTRAS.get(error.name, "text")
        say(f"error: the Python package {error.name} is missing: pip install 'nanoserve[{extra}]'")
        return 1
    except BrokenPipeError:  # `--list | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a file that cannot be read while it is listed or verified
        say(f"error: {error.filename or weights_dir()} cannot be read ({error.strerror or error})")
        return 1
    except KeyboardInterrupt:
        done = " nothing half made was left under the checkpoint's name"
        say("interrupted" + (f":{done}" if args.run is download.run else ""))
        return 130
    return 0
