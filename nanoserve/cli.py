"""The command `nanoserve`, which is `python -m nanoserve` too.

A subcommand is a function here that adds its arguments and one that runs it. What a subcommand
needs is imported when it runs.
"""

import argparse
import os
import sys
import time
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from nanoserve import __version__
from nanoserve.checkpoints import CheckpointError, checkpoint_path, weights_dir
from nanoserve.checkpoints.catalog import CATALOG, DEFAULT, TWIN
from nanoserve.checkpoints.places import command
from nanoserve.server.arguments import add_serve

if TYPE_CHECKING:
    from nanoserve.sampling import SamplingParams


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


def add_sampling(parser: argparse.ArgumentParser, most: int) -> None:
    """The arguments that are fields of SamplingParams, and the checkpoint."""
    parser.add_argument("--checkpoint", help=f"a name or a folder; default {DEFAULT}")
    about = f"at most so many; default {most}"
    parser.add_argument("--max-tokens", type=int, default=most, help=about)
    about = "end before this text; may be given several times"
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help=about)
    numbers = {
        "temperature": "0 takes the best token every time; default 1",
        "top-p": "keep the likeliest tokens that together have this much of the probability",
        "top-k": "keep this many of the likeliest tokens",
        "min-p": "keep tokens with at least this share of the likeliest one's probability",
        "repetition-penalty": "over 1: less of what was there, prompt and answer",
        "presence-penalty": "over 0: less of what the answer has",
        "frequency-penalty": "over 0: less of what the answer has often",
        "seed": "the same seed gives the same text",
        "min-tokens": "no end before this many",
    }
    for name, what in numbers.items():
        kind = int if name in ("top-k", "seed", "min-tokens") else float
        parser.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS, help=what)


def sampling(args: argparse.Namespace, ends: tuple[int, ...]) -> "SamplingParams":
    """What was asked for, ending at `ends`. ValueError names what is wrong."""
    from nanoserve.sampling import SamplingParams

    given = {f.name: getattr(args, f.name) for f in fields(SamplingParams) if f.name in args}
    return SamplingParams(**given, stop_token_ids=ends)


def add_generate(commands) -> None:
    """The arguments of `nanoserve generate`."""
    about = "go on from a text, token by token"
    parser = commands.add_parser("generate", help=about, description=about)
    parser.set_defaults(run=run_generate)
    about = "what to go on from; names of control tokens in it are these tokens"
    parser.add_argument("text", help=about)
    parser.add_argument("--ignore-eos", action="store_true", help="go on where the model ends")
    add_sampling(parser, 128)


def run_generate(args: argparse.Namespace) -> None:
    """Print what the model writes, as it writes it. Raises ValueError, CheckpointError too."""
    from nanoserve.generate import stop_ids, stream
    from nanoserve.model import Llama
    from nanoserve.products import use_onednn
    from nanoserve.text import Detokenizer, Tokenizer

    path = checkpoint_path(args.checkpoint)
    params = sampling(args, () if args.ignore_eos else stop_ids(path))
    tokenizer = Tokenizer.from_pretrained(path)
    out = Detokenizer(tokenizer, params.stop)
    ids = tokenizer.encode(args.text, control=True)  # whoever runs this owns all of the prompt
    model = Llama.from_pretrained(path)
    use_onednn(model)  # where it can
    pieces = stream(model, ids, replace(params, stop=()))
    count, start = 0, time.perf_counter()
    first = start
    try:
        for piece in pieces:
            print(out.push(piece.token_ids[0]), end="", flush=True)
            count += 1
            if count == 1:
                first = time.perf_counter()
            if out.stopped:
                break
    finally:  # after Ctrl-C too
        print(out.finish(), flush=True)
        if count > 1:
            rate = (count - 1) / (time.perf_counter() - first)
            say(f"{count} tokens, the first after {first - start:.2f} s, then {rate:.1f} a second")


def add_cost(commands) -> None:
    """The arguments of `nanoserve cost`."""
    about = "measure this machine, and predict its tokens a second"
    parser = commands.add_parser("cost", help=about, description=about)
    parser.set_defaults(run=run_cost)
    parser.add_argument("--checkpoint", help=f"a name or a folder; default {DEFAULT}")
    parser.add_argument("--context", type=int, default=256, help="tokens a text; default 256")


def run_cost(args: argparse.Namespace) -> None:
    """Print each line when it is known. Raises CheckpointError, ValueError."""
    from nanoserve.forecast import forecast

    for line in forecast(checkpoint_path(args.checkpoint), args.context):
        print(line, flush=True)


def add_chat(commands) -> None:
    """The arguments of `nanoserve chat`."""
    about = "talk with a model, here in the terminal"
    parser = commands.add_parser("chat", help=about, description=about)
    parser.set_defaults(run=run_chat)
    parser.add_argument("--system", default="", metavar="TEXT", help="what it is told first")
    add_sampling(parser, 1024)


def run_chat(args: argparse.Namespace) -> None:
    """A conversation, until /exit or the end of the input. Raises ValueError, CheckpointError."""
    from nanoserve.chat import Conversation, talk
    from nanoserve.generate import stop_ids
    from nanoserve.model import Llama
    from nanoserve.products import use_onednn
    from nanoserve.text import Tokenizer

    path = checkpoint_path(args.checkpoint)
    sampling(args, ())  # what is wrong is said before anything is read
    tokenizer = Tokenizer.from_pretrained(path)
    if tokenizer.template is None:
        raise CheckpointError(f"{path} has no chat template: `generate` goes on from a text")
    params = sampling(args, (*stop_ids(path), *tokenizer.turn_ends()))
    model = Llama.from_pretrained(path)
    use_onednn(model)  # where it can
    talk(Conversation(model, tokenizer, params, args.system))


def main(argv: list[str] | None = None) -> int:
    """Run the command. 0: all is well, 1: it is not, 2: wrong arguments, 130: interrupted."""
    if hasattr(sys.stdout, "reconfigure"):  # not so within a notebook
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may have letters that it lacks
    parser = argparse.ArgumentParser(prog="nanoserve", description="LLM inference, from a book.")
    parser.add_argument("--version", action="version", version=f"nanoserve {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_download(commands)
    add_generate(commands)
    add_cost(commands)
    add_chat(commands)
    add_serve(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except ValueError as error:  # CheckpointError is one
        say(f"error: {error}")
        return 1
    except ImportError as error:
        need = f"pip install 'nanoserve[{getattr(args, 'extra', 'text')}]'"
        say(f"error: the Python package {error.name} is missing: {need}")
        return 1
    except BrokenPipeError:  # `--list | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a file that cannot be read while it is listed or verified
        say(f"error: {error.filename or weights_dir()} cannot be read ({error.strerror or error})")
        return 1
    except KeyboardInterrupt:
        done = " nothing half made was left under the checkpoint's name"
        say("interrupted" + (f":{done}" if args.run is run_download else ""))
        return 130
    return 0
