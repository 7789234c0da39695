"""`nanoserve chat`: a conversation in the terminal."""

import argparse

from nanoserve.checkpoints import CheckpointError, checkpoint_path
from nanoserve.commands.common import add_sampling, sampling


def add(commands) -> None:
    """The arguments of `nanoserve chat`."""
    about = "talk with a model, here in the terminal"
    parser = commands.add_parser("chat", help=about, description=about)
    parser.set_defaults(run=run)
    parser.add_argument("--system", default="", metavar="TEXT", help="what it is told first")
    add_sampling(parser, 1024)


def run(args: argparse.Namespace) -> None:
    """A conversation, until /exit or the end of the input. Raises ValueError, CheckpointError."""
    from nanoserve.chat import Conversation, talk
    from nanoserve.cpu import make_fast
    from nanoserve.generate import stop_ids
    from nanoserve.model import Llama
    from nanoserve.text import Tokenizer

    path = checkpoint_path(args.checkpoint)
    sampling(args, ())  # what is wrong is said before anything is read
    tokenizer = Tokenizer.from_pretrained(path)
    if tokenizer.template is None:
        raise CheckpointError(f"{path} has no chat template: `generate` goes on from a text")
    ends = (*tokenizer.turn_ends(), *tokenizer.called(args.stop))
    params = sampling(args, (*stop_ids(path), *ends))
    model = Llama.from_pretrained(path)
    make_fast(model)  # where it can be
    talk(Conversation(model, tokenizer, params, args.system))
