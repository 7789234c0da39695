"""`nanoserve download`: a checkpoint into weights/, whole or not at all."""

import argparse

from nanoserve.checkpoints import CheckpointError, weights_dir
from nanoserve.checkpoints.catalog import CATALOG, DEFAULT, TWIN
from nanoserve.checkpoints.places import command


def add(commands) -> None:
    """The arguments of `nanoserve download`."""
    about = "put a checkpoint into weights/, whole or not at all"
    parser = commands.add_parser("download", help=about, description=about)
    parser.set_defaults(run=run)
    parser.add_argument("name", nargs="?", help=f"one of {', '.join(CATALOG)}; default {DEFAULT}")
    parser.add_argument("--full", action="store_true", help=f"{TWIN} with all its 16 layers")
    parser.add_argument("--list", action="store_true", help="what there is, and what is on disk")
    parser.add_argument("--verify", action="store_true", help="read every file and check its hash")


def run(args: argparse.Namespace) -> None:
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
