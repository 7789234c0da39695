"""Runs notebooks top to bottom in fresh kernels and stores clean outputs: make refresh.

    python book/refresh.py [NOTEBOOK ...]

No timings, no metadata that varies: a second run gives no diff. Output on stderr is refused.
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tangle import BOOK, QUIET

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"},
}


def refresh(path: Path) -> list[str]:
    """Run one notebook and store its outputs; returns what is wrong with them."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        return [f"{path.name}: {error}"]
    wrong = []
    for number, cell in enumerate(notebook.cells):
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                wrong.append(f"{path.name}, cell {number} wrote to stderr: {output.text[:300]}")
    notebook.metadata = METADATA
    if not wrong:
        temporary = path.with_suffix(".tmp")
        nbformat.write(notebook, temporary)
        os.replace(temporary, path)
    return wrong


def main(names: list[str]) -> int:
    """Refresh the named notebooks, or all; returns the exit status."""
    os.environ.update(QUIET, PYDEVD_DISABLE_FILE_VALIDATION="1")
    wrong = []
    for path in map(Path, names or sorted(BOOK.glob("*.ipynb"))):
        print(path.name, flush=True)
        wrong += refresh(path.resolve())
    print(*wrong, sep="\n", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
