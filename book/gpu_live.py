"""Runs the notebooks of Week 5 on this machine, every cell of them, and tells what went wrong.

    python book/gpu_live.py [NOTEBOOK ...]     default: Days 22 to 26

On a GPU their kernels run on it. Nothing is stored: what the pages show is of a CPU, and a cell
whose text is another one here is told of. The exit status is 1 where a cell failed.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from environment import settle
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from tangle import BOOK

SECONDS = 300  # for a cell: on a GPU every kernel is compiled first


def texts(cell) -> str:
    """What a cell shows as text."""
    shown = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
    return "".join(shown).strip()


def live(path: Path) -> tuple[list[str], bool]:
    """Run one notebook; lines that tell of it, and whether all cells ran."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    stored = [texts(cell) for cell in cells]
    for cell in cells:
        cell.outputs = []
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        allow_errors=True,
        coalesce_streams=True,
        resources={"metadata": {"path": str(BOOK)}},
    )
    lines, failed, begin = [], 0, time.perf_counter()
    try:
        client.execute()
    except (CellTimeoutError, DeadKernelError) as error:
        lines += [str(error).strip()[-600:]]
    seconds = time.perf_counter() - begin
    reached = sum(cell.execution_count is not None for cell in cells)
    for number, (cell, before) in enumerate(zip(cells, stored, strict=True)):
        tags = cell.metadata.get("tags", [])
        wrong = [o for o in cell.outputs if o.output_type == "error"]
        failed += bool(wrong)
        for error in wrong:
            lines += [f"cell {number} FAILED: {error.ename}: {error.evalue}"[:400]]
            lines += ["\n".join(error.traceback)[-1200:]]
        if not wrong and texts(cell) != before and "nbval-ignore-output" not in tags:
            lines += [f"cell {number} has another text here:\n{texts(cell)[:1200]}"]
            lines += [f"the page has:\n{before[:600]}"]
        if "comparison" in tags:
            lines += ["its comparison:\n" + texts(cell)]
    well = not failed and reached == len(cells)
    head = f"{path.stem}: {reached} of {len(cells)} cells ran, {failed} failed, {seconds:.0f} s"
    return [head, *lines], well


def main(arguments: list[str]) -> int:
    """Three at a time: most of it is compiling. Returns the exit status."""
    settle()  # inherited by the kernels
    paths = [Path(a) for a in arguments] or [BOOK / f"day{n}.ipynb" for n in range(22, 27)]
    well = True
    with ThreadPoolExecutor(3) as workers:
        for lines, fine in workers.map(live, paths):
            print("\n".join(lines), "\n", flush=True)
            well &= fine
    return int(not well)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
