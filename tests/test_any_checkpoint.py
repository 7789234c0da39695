"""Every day runs on whichever checkpoint is chosen: the README promises it of the real 1B.

Two that differ from the default in all that a notebook could take for granted. The twin is one
file without a tokenizer, with two layers and scaled RoPE. The wide one is made here: fp16, in
shards, untied, with heads of 128, which are together wider than a token's vector.

    python -m pytest "tests/test_any_checkpoint.py" -k day02

To look at one in JupyterLab: `python tests/tiny.py FOLDER` writes the wide one there, and
NANOSERVE_CHECKPOINT=FOLDER chooses it.
"""

from pathlib import Path

import nbformat
import pytest
from refresh import execute
from tiny import save_wide

from nanoserve.checkpoints import TWIN, checkpoint_path

BOOK = Path(__file__).resolve().parent.parent / "book"
DAYS = sorted(path.stem for path in BOOK.glob("day[0-9][0-9].ipynb"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """The checkpoints to choose, by name."""
    wide = tmp_path_factory.mktemp("checkpoints") / "wide-fp16-shards"
    save_wide(wide)
    assert len(list(wide.glob("model-*.safetensors"))) > 1
    return {"twin": checkpoint_path(TWIN), "wide": wide}


@pytest.mark.parametrize("choice", ["twin", "wide"])
@pytest.mark.parametrize("day", DAYS)
def test_a_day_on_another_checkpoint(day, choice, folders, monkeypatch):
    """The whole notebook in a fresh kernel: nothing fails, and its comparison is of the chosen."""
    monkeypatch.setenv("NANOSERVE_CHECKPOINT", str(folders[choice]))
    notebook = nbformat.read(BOOK / f"{day}.ipynb", as_version=4)
    assert execute(notebook, BOOK, timeout=300) == []
    *_, comparison = (cell for cell in notebook.cells if cell.cell_type == "code")
    (board,) = (o for o in comparison.outputs if o.output_type == "execute_result")
    assert f"\n{folders[choice].name} " in board.data["text/plain"]
