"""Runs notebooks from top to bottom and stores their outputs in them: make refresh.

    python book/refresh.py [NOTEBOOK ...]     default: every notebook of the book

Each runs in a fresh kernel, in book/. What is stored does not depend on when or where that was:
a second run gives no difference. So a cell tagged nbval-ignore-output, which measures times, keeps
the outputs that it has; clear them to have new ones. A notebook that fails, or writes to stderr,
stays as it was, and the exit status is 1.
"""

import argparse
import sys
from pathlib import Path

import nbformat
from environment import settle
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tangle import BOOK, write

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"},
}


def execute(notebook: nbformat.NotebookNode, folder: Path, timeout: int) -> list[str]:
    """Run the cells in place, in `folder`; return what went wrong, a line each."""
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    wrong = []
    try:
        client.execute()
    except CellExecutionError:
        pass  # its cell's output says so
    except (CellTimeoutError, DeadKernelError) as error:
        wrong.append(str(error).strip())
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                wrong.append(f"cell {number}: {output.ename}: {output.evalue}")
            elif output.get("name") == "stderr":
                wrong.append(f"cell {number} wrote to stderr: {output.text.strip()}")
    return wrong


def forget(notebook: nbformat.NotebookNode) -> dict[str, list]:
    """Take out the outputs, so that a cell that is not reached shows nothing old.

    Returns, by the cell's id, those that hold measured times: no two runs agree on them.
    """
    measured = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if cell.outputs and "nbval-ignore-output" in cell.metadata.get("tags", []):
                measured[cell.id] = cell.outputs
            cell.outputs, cell.execution_count = [], None
    return measured


def clean(notebook: nbformat.NotebookNode, measured: dict[str, list]) -> None:
    """Take out what differs between runs and machines; number the code cells from 1.

    What the page folds or leaves out is folded in JupyterLab too: some of it is answers.
    """
    notebook.metadata.update(METADATA)
    count = 0
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.metadata.pop("jupyter", None)
            if {"hide-input", "remove-cell"} & set(cell.metadata.get("tags", [])):
                cell.metadata["jupyter"] = {"source_hidden": True}
            count += 1
            cell.execution_count = count
            cell.outputs = measured.get(cell.id, cell.outputs)
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count


def refresh(path: Path, folder: Path = BOOK, timeout: int = 600) -> list[str]:
    """Run one notebook in `folder` and store it; return what is wrong with it, a line each.

    `timeout` is in seconds, for each cell. With anything wrong, nothing is stored.
    """
    notebook = nbformat.read(path, as_version=4)
    measured = forget(notebook)
    wrong = execute(notebook, folder, timeout)
    if not wrong:
        clean(notebook, measured)
        write(path, nbformat.writes(notebook).rstrip("\n") + "\n")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Run notebooks and store their outputs.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: book/*.ipynb")
    notebooks = parser.parse_args(arguments).notebooks or sorted(BOOK.glob("*.ipynb"))
    settle()  # inherited by the kernels
    failed = False
    for path in notebooks:
        wrong = refresh(path)
        failed |= bool(wrong)
        for line in wrong or ["stored"]:
            print(f"{path.name}: {line}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
