"""A reader at work in practice: whose pieces a day uses, and what is said to have passed."""

import json
import os
import shutil
from pathlib import Path

import nbformat
import pytest
import shell
from cells import HEADER
from desk import Desk
from practice import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The practice notebooks, as `make practice` writes them."""
    target = tmp_path_factory.mktemp("made") / "practice"
    assert main(target) == 0
    return target


@pytest.fixture
def folder(made, tmp_path):
    """A reader's own."""
    return shutil.copytree(made, tmp_path / "practice")


class Notebook:
    """A day's code cells in practice, and the book's own text of its module cells."""

    def __init__(self, folder: Path, day: str):
        self.folder, self.day = folder, day
        cells = nbformat.read(folder / f"{day}.ipynb", as_version=4).cells
        code = [cell for cell in cells if cell.cell_type == "code"]
        self.first, self.last = code[0].source, code[-1].source
        self.comparison = code[-2].source
        assert "comparison" in code[-2].metadata.tags
        self.blank = [c.source for c in code if HEADER.match(c.source + "\n")]
        book = nbformat.read(ROOT / "book" / f"{day}.ipynb", as_version=4).cells
        self.right = [c.source for c in book if HEADER.match(c.source + "\n")]

    def run(self, *cells: str) -> list[str]:
        """What each cell shows, its error too, in a new kernel."""
        environment = {
            **os.environ,
            "NANOSERVE_WEIGHTS": str(ROOT / "weights"),
            "NANOSERVE_CHECKPOINT": "llama-3.2-1b-twin",  # one is enough here
        }
        return shell.show(list(cells), self.folder, environment)

    def kept(self) -> dict:
        return json.loads((self.folder / "mine" / f"{self.day}.json").read_text("utf-8"))


def states(shown: str) -> list[list[str]]:
    """The columns of `progress`: written and passed, for each function."""
    return [line.split(maxsplit=2)[1:] for line in shown.splitlines()[1:] if "." in line[:20]]


def test_a_day_from_blank_to_passed(folder):
    day = Notebook(folder, "day05")
    linear, swiglu = day.blank
    right = day.right[1]
    wrong = right.replace("F.silu(self.gate_proj(x)) * self.up_proj(x)", "self.up_proj(x)")
    assert wrong != right
    cells = (day.comparison, day.last)
    # A second time the first cell begins anew, so one kernel is enough: imports take long.
    again = wrong, day.last, day.first, *cells
    shown = day.run(day.first, linear, swiglu, *cells, wrong, *cells, right, *cells, *again)
    first, _, _, blank, none, _, off, half, _, good, both, _, spoilt, _, board, _ = shown
    assert "none of your pieces has passed" in first
    assert blank.strip() == "Day 5: SwiGLU.__init__ is yours to write"
    assert states(none) == [["no", "no"]] * 2
    # A verdict is its message and no traceback.
    assert "does not match HuggingFace" in off and "Traceback" not in off and "--->" not in off
    assert states(half) == [["yes", "no"]] * 2
    assert "match HuggingFace within 1e-5" in good and "This board judged your SwiGLU.\n" in good
    assert states(both) == [["yes", "yes"]] * 2 and "2 of 2 written, 2 of 2 passed" in both
    # Passed, then spoilt: the text that has passed is safe, and the board tells whose code it was.
    assert states(spoilt) == [["yes", "an earlier version"]] * 2
    assert "self.gate_proj(x)" in day.kept()["passed"]["layers.SwiGLU"]
    assert "This board judged the book's own SwiGLU, nothing of yours." in board
    assert day.kept()["passed"].keys() == {"layers.SwiGLU"}
    assert (
        "passed on their days: SwiGLU (Day 5)"
        in Notebook(folder, "day06").run(day.first.replace("05", "06"))[0]
    )


def test_a_board_with_nothing_written_says_so_and_counts_for_nothing(folder):
    day = Notebook(folder, "day05")
    _, board, last, *_ = day.run(day.first, day.comparison, day.last, day.right[1], "board")
    assert "match HuggingFace" in board and "the book's own SwiGLU, nothing of yours" in board
    assert "0 of 2 written, 0 of 2 passed" in last
    assert day.kept()["passed"] == {}  # an old board, shown again, judges nothing


def test_a_kernel_without_the_first_cell_is_refused_a_board(folder):
    day = Notebook(folder, "day05")
    _, board = day.run(day.right[1].replace("self.up_proj(x)", "x"), day.comparison)
    assert "This kernel has not run the first cell: nothing of yours would be judged." in board
    assert "match" not in board


def test_module_cells_run_in_any_order_after_a_restart(folder):
    day = Notebook(folder, "day06")
    shown = day.run(day.first, *reversed(day.right), "print(Attention, causal_attention)")
    assert not any("Error" in text for text in shown), shown
    assert "nanoserve.layers.Attention" in shown[-1]


def test_only_the_readers_own_lines_are_in_a_traceback(folder):
    day = Notebook(folder, "day05")
    mine = day.right[1].replace("self.up_proj(x)", "self.up(x)")
    use = "from nanoserve.config import ModelConfig\nfrom nanoserve.model import Llama\n"
    use += "from nanoserve.checkpoints import TWIN, checkpoint_path\n"
    use += "m = Llama.from_pretrained(checkpoint_path(TWIN))\nm(torch.zeros(1, 2).long())"
    silent = day.right[1].replace("return self.down", "self.down")
    bare = day.right[1].replace("super().__init__()", "pass")
    cells = mine, use, day.comparison, silent, day.comparison, bare, day.comparison
    *_, shown, judged, _, none, _, unborn = day.run(day.first, day.right[0], *cells)
    assert "has no attribute 'up'" in shown and "self.up(x)" in shown and "m(torch" in shown
    assert "self.attn(" not in shown and "self.mlp(" not in shown and "_call_impl" not in shown
    assert "It was raised in SwiGLU.forward, at `" in judged and "---" not in judged
    assert "blocks.0.mlp (MLP, fp32): nanoserve gives None, and a tensor is wanted" in none
    assert "It was raised in SwiGLU.__init__, at `self.gate_proj = " in unborn
    assert "Begin `__init__` with `super().__init__()`." in unborn and "---" not in unborn


def put(folder: Path, day: str, **kept) -> None:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / f"{day}.json").write_text(json.dumps(kept))


def layers(desk: Desk) -> str:
    desk.lay_out(True)
    return (desk.package / "layers.py").read_text("utf-8")


@pytest.fixture
def quiet(monkeypatch, package, folder):
    """Nothing of nanoserve is imported here, whatever a desk lays out."""
    monkeypatch.setattr("desk.importlib.import_module", lambda name: None)
    return folder


def piece(name: str, body: str) -> dict[str, str]:
    return {f"layers.{name}": f"# nanoserve/layers.py\nclass {name}:\n    {body}\n"}


def test_a_day_uses_what_has_passed_of_earlier_days_alone(quiet):
    put(quiet, "day04", written=piece("RMSNorm", "eps = 3"), passed=piece("RMSNorm", "eps = 2"))
    put(quiet, "day05", written=piece("SwiGLU", "x = 1"), passed={})
    put(quiet, "day07", written={}, passed=piece("TransformerBlock", "y = 1"))
    day6, day4 = Desk("day06", quiet), Desk("day04", quiet)
    text = layers(day6)
    assert "eps = 2" in text and "eps = 3" not in text
    assert "x = 1" not in text and "y = 1" not in text
    assert day6.earlier == {"day04": ["RMSNorm"]}
    assert "eps = 2" not in layers(day4) and day4.earlier == {}
    assert "y = 1" in layers(Desk("day08", quiet))
    day6.lay_out(False)
    assert "eps = 2" not in (day6.package / "layers.py").read_text("utf-8")
    assert day6.earlier == {}


def test_pieces_that_do_not_fit_are_left_out_with_a_word(folder):
    put(folder, "day04", written={}, passed=piece("RMSNorm", "eps = nowhere"))
    day = Notebook(folder, "day05")
    use = "from nanoserve.layers import RMSNorm; print(RMSNorm(4, 1).eps)"
    first, used = day.run(day.first, use)
    assert "do not fit together, so the book's are used: name 'nowhere'" in first
    assert used == "1\n"


def test_blanks_of_a_later_day_reach_no_other(folder):
    later = Notebook(folder, "day06")
    assert "Error" not in "".join(later.run(later.first, *later.blank))
    package = folder / ".nanoserve" / "day06" / "nanoserve"
    assert "causal_attention is yours" in (package / "layers.py").read_text("utf-8")
    day = Notebook(folder, "day05")
    source = "import inspect, nanoserve.layers; print(inspect.getsource(nanoserve.layers))"
    assert "yours to write" not in "".join(day.run(day.first, source))
