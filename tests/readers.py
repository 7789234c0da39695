"""A book and a reader at work on it, for the tests of book/tangle.py."""

import json
import os
import sys
import time
from pathlib import Path

import live
import nbformat
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


def write_book(folder: Path, **days: list[str]) -> Path:
    """Notebooks of code cells, in `folder`."""
    folder.mkdir(exist_ok=True)
    for day, sources in days.items():
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{day}.ipynb")
    return folder


class Reader:
    """A kernel with %load_ext live, in this process; its package is $NANOSERVE_PACKAGE."""

    def __init__(self, book: Path):
        config = Config()
        config.HistoryManager.enabled = False
        self.shell = InteractiveShell(config=config, ipython_dir=str(book.parent / "ipython"))
        live.install(self.shell, book)

    def run(self, source: str) -> BaseException | None:
        """Run a cell; return the error that it shows."""
        result = self.shell.run_cell(source)
        return result.error_before_exec or result.error_in_exec

    def __getitem__(self, name: str):
        return self.shell.user_ns[name]


def main(book: str, start: str, sources: str) -> None:
    """Another process: run the cells once the file `start` is there."""
    reader = Reader(Path(book))
    print("ready", flush=True)
    while not os.path.exists(start):
        time.sleep(0.01)
    for source in json.loads(sources):
        if error := reader.run(source):
            raise error


if __name__ == "__main__":
    main(*sys.argv[1:])
