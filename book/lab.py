"""JupyterLab on the book's notebooks, or on those of another folder: make lab.

    python book/lab.py
    python book/lab.py practice

The folder's notebooks are trusted, so that a figure that is a small program shows before its cell
has run, and what only the book's tools need is out of sight. More arguments are JupyterLab's.
"""

import sys
from pathlib import Path

import nbformat
from jupyterlab.labapp import main as lab
from nbformat.sign import NotebookNotary

BOOK = Path(__file__).resolve().parent
OUT_OF_SIGHT = ("*.py", "*.json", "*.toml", "*.mplstyle", "_*", "figures", "__pycache__", "*~")


def trust(folder: Path) -> None:
    """Tell Jupyter that the notebooks' outputs may show as they are."""
    notary = NotebookNotary()
    for path in sorted(folder.glob("*.ipynb")):
        notary.sign(nbformat.read(path, as_version=4))


def main(arguments: list[str]) -> None:
    """Start it, and stay until it ends."""
    folder = BOOK
    if arguments and not arguments[0].startswith("-"):
        folder = Path(arguments.pop(0)).resolve()
    trust(folder)
    hide = [f"--ContentsManager.hide_globs={pattern}" for pattern in OUT_OF_SIGHT]
    lab([str(folder), *hide, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
