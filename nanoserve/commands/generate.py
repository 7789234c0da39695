"""`nanoserve generate`: on from a text, token by token."""

import argparse
import time
from dataclasses import replace

from nanoserve.checkpoints import checkpoint_path
from nanoserve.commands.common import add_sampling, sampling, say


def add(commands) -> None:
    """The arguments of `nanoserve generate`."""
    about = "go on from a text, token by token"
    parser = commands.add_parser("generate", help=about, description=about)
    parser.set_defaults(run=run)
    about = "what to go on from; names of control tokens in it are these tokens"
    parser.add_argument("text", help=about)
    parser.add_argument("--ignore-eos", action="store_true", help="go on where the model ends")
    add_sampling(parser, 128)


def run(args: argparse.Namespace) -> None:
    """Print what the model writes, as it writes it. Raises ValueError, CheckpointError too."""
    from nanoserve.cpu import make_fast
    from nanoserve.generate import stop_ids, stream
    from nanoserve.model import Llama
    from nanoserve.text import Detokenizer, Tokenizer

    path = checkpoint_path(args.checkpoint)
    params = sampling(args, () if args.ignore_eos else stop_ids(path))
    tokenizer = Tokenizer.from_pretrained(path)
    out = Detokenizer(tokenizer, params.stop)
    ids = tokenizer.encode(args.text, control=True)  # whoever runs this owns all of the prompt
    model = Llama.from_pretrained(path)
    make_fast(model)  # where it can be
    ends = (*params.stop_token_ids, *tokenizer.called(params.stop))
    pieces = stream(model, ids, replace(params, stop=(), stop_token_ids=ends))
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
