"""What several subcommands say and ask for."""

import argparse
import sys
from dataclasses import fields
from typing import TYPE_CHECKING

from nanoserve.checkpoints.catalog import DEFAULT

if TYPE_CHECKING:
    from nanoserve.sampling import SamplingParams


def say(text: str) -> None:
    """Tell the user, beside what the command prints."""
    print(text, file=sys.stderr, flush=True)


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


def add_engine(parser: argparse.ArgumentParser) -> None:
    """The arguments that are the engine's settings."""
    settings = {
        "block-size": "tokens of a block of the pool; default 16",
        "num-blocks": "blocks of the pool; default: half a GiB of them, on a GPU what it has free",
        "max-num-seqs": "requests that run at once; default 16, on a GPU 256",
        "max-num-batched-tokens": "tokens that a step reads; default 512, on a GPU 8192",
        "max-model-len": "on a GPU: tokens that a text may have; default: the model's context",
    }
    for name, what in settings.items():
        parser.add_argument(f"--{name}", type=int, default=argparse.SUPPRESS, help=what)
    parser.add_argument("--device", default="cpu", help="cpu, the default, or cuda")
    kinds = ("bfloat16", "float16", "float32")
    about = "on a GPU: numbers of weights and cache; default bfloat16"
    parser.add_argument("--dtype", choices=kinds, default=argparse.SUPPRESS, help=about)
    about = "let equal beginnings be computed once (the default), or not"
    action = argparse.BooleanOptionalAction
    parser.add_argument(
        "--enable-prefix-caching", action=action, default=argparse.SUPPRESS, help=about
    )


SETTINGS = ("block_size", "num_blocks", "max_num_seqs", "max_num_batched_tokens")
SETTINGS += ("enable_prefix_caching",)
ON_A_GPU = ("max_model_len", "dtype")


def option(name: str) -> str:
    """How an argument is written in the command: --num-blocks for num_blocks."""
    return f"--{name.replace('_', '-')}"


def given_settings(args: argparse.Namespace) -> list[str]:
    """The names of the engine's settings that were given, whatever their values."""
    return [name for name in (*SETTINGS, *ON_A_GPU) if name in args]


def engine_settings(args: argparse.Namespace) -> dict:
    """The engine's settings that were given, by its names. ValueError names what is wrong."""
    given = given_settings(args)
    if args.device == "cpu":
        for name in given:
            if name in ON_A_GPU:
                raise ValueError(f"{option(name)} is of a GPU: leave it out, or give --device cuda")
    return {name: getattr(args, name) for name in given}
