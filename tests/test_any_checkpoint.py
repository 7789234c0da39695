"""Every day runs on whichever checkpoint is chosen: the README promises it of the real 1B.

The one chosen here differs from the default in all that a notebook could take for granted: fp16,
untied, no tokenizer, three layers, scaled RoPE, heads of 128, which are together wider than a
token's vector.

    python -m pytest "tests/test_any_checkpoint.py" -k day02

To look at it in JupyterLab: `python tests/tiny.py FOLDER` writes it there, and
NANOSERVE_CHECKPOINT=FOLDER chooses it.
"""

from pathlib import Path

import nbformat
import pytest
import shell
from tiny import save_wide

DAYS = sorted(path.stem for path in shell.BOOK.glob("day[0-9][0-9].ipynb"))
# The twin beside it is compared in every run by nbval.
ALONE = """
import nanoserve.checkpoints as _places
_places.compared_checkpoints = lambda: [_places.checkpoint_path()]
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """The checkpoint to choose."""
    folder = tmp_path_factory.mktemp("checkpoints") / "wide-fp16-shards"
    save_wide(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


def depending(cells: list[nbformat.NotebookNode]) -> list[str]:
    """The cells that another checkpoint can change, with those that they need.

    All of them, where one outside the comparison asks for the chosen checkpoint. Else the others
    take the default by its name, and only module cells and the comparison are left.
    """
    sources = ["%load_ext live" if "%load_ext live" in c.source else c.source for c in cells]
    *body, comparison = sources
    if not any("checkpoint_path()" in source for source in body):
        finds = "import nanoserve.kernels"  # Triton, which lies in a folder of its own
        finds = [finds] if any(finds in source for source in body) else []
        body = [s for s in body if s.startswith(("# nanoserve/", "%load_ext live"))]
        body[1:1] = finds
    return [*body, comparison]


@pytest.mark.parametrize("day", DAYS)
def test_a_day_on_another_checkpoint(day, wide, monkeypatch):
    """Nothing fails or writes to stderr, and its comparison is of the chosen alone."""
    monkeypatch.setenv("NANOSERVE_CHECKPOINT", str(wide))
    notebook = nbformat.read(shell.BOOK / f"{day}.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    board, wrong = shell.run(depending(cells), ALONE)
    assert not wrong, wrong
    assert f"\n{wide.name} " in board and "twin" not in board
