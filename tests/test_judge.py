"""The judge, judged: compare and the Scoreboard. Its bugs: tests/mutants/comparison.toml."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from judging import DEFAULTS, complaint, defaults
from torch import nn

from nanoserve.comparison import Scoreboard, compare

NAN, INF, LARGEST = float("nan"), float("inf"), torch.finfo(torch.float64).max


def one(value: float, dtype=torch.float64) -> torch.Tensor:
    """A tensor (1,), far from whatever torch's default dtype is."""
    return torch.tensor([value], dtype=dtype, device="cpu")


def values(*shape: int) -> torch.Tensor:
    """Seeded values, half of them below 0."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def recorded(path="some/checkpoint", **outputs):
    """What stands for a Reference."""
    return SimpleNamespace(path=Path(path), inputs={}, outputs=outputs)


def test_the_bar_is_where_it_is_said_to_be():
    for theirs in (0.0, 1.0, -1.0, 1e-3, 1e3, -1e3, 1e30):
        bar = 1e-5 + 1e-5 * abs(theirs)
        for sign in (-1, 1):
            compare("x", one(theirs + sign * 0.999 * bar), one(theirs))
            complaint(compare, "x", one(theirs + sign * 1.001 * bar), one(theirs))


def test_tolerances_are_those_given_and_relative_to_theirs():
    compare("x", one(1.49), one(1.0), rtol=0.5, atol=0.0)
    complaint(compare, "x", one(1.9), one(1.0), rtol=0.5, atol=0.0)
    complaint(compare, "x", one(1 + 1e-11), one(1.0), rtol=1e-12, atol=1e-12)
    complaint(compare, "x", one(1 + 1e-15), one(1.0), rtol=0.0, atol=0.0)
    compare("x", one(0.4), one(0.0), rtol=0.0, atol=0.5)


def test_every_place_counts_at_its_own_size():
    theirs = values(2, 3, 4, 5)
    theirs[1, 2, 3, 4] = 1e6  # a massive one, as trained models have
    for place in range(theirs.numel() - 1):
        mine = theirs.clone()
        mine.view(-1)[place] += 1e-3
        assert "1 of 120" in complaint(compare, "x", mine, theirs)


def test_all_slightly_off_is_off():
    complaint(compare, "x", values(50, 7) * (1 + 1e-4), values(50, 7))


def test_the_largest_difference_is_given():
    theirs = torch.zeros(3)
    assert abs(compare("x", torch.tensor([1e-6, -8e-6, 0.0]), theirs) - 8e-6) < 1e-9
    assert compare("x", theirs, theirs.clone()) == 0.0
    assert compare("x", one(INF), one(INF)) == 0.0


def test_what_is_no_number_matches_nothing():
    pairs = (NAN, 1.0), (1.0, NAN), (NAN, NAN), (INF, -INF), (5.0, INF), (INF, 5.0), (LARGEST, INF)
    for mine, theirs in pairs:
        complaint(compare, "x", one(mine), one(theirs))
    complaint(compare, "x", torch.tensor([1.0, NAN]), torch.tensor([1.0, NAN]))


def test_shape_dtype_and_device_are_part_of_it():
    x = torch.ones(2, 3)
    for other in (x[0], x[:, :1], x[None], x.T, x.double(), x.bfloat16(), x.int(), x.to("meta")):
        complaint(compare, "x", other, x)
        complaint(compare, "x", x, other)
    complaint(compare, "x", x.to("meta"), x.to("meta"))
    complaint(compare, "x", x[:0], x[:0])
    compare("x", torch.ones(3, 2).T, x)  # in what order they lie in memory is not


def test_what_is_no_tensor_is_named():
    for mine in (None, 1.0, [1.0], (torch.ones(1),)):
        assert "a tensor is wanted" in complaint(compare, "x", mine, torch.ones(1))
    compare("x", nn.Parameter(torch.ones(1)), torch.ones(1))


def test_integers_and_bools_are_equal_or_not():
    ids = torch.tensor([100_000, 120_000])
    complaint(compare, "ids", ids + 1, ids)
    complaint(compare, "ids", ids + 1, ids, rtol=0.1)
    complaint(compare, "ids", torch.tensor([True]), torch.tensor([False]))
    assert compare("ids", ids, ids.clone()) == 0.0


def test_a_mismatch_says_of_what_and_how_much():
    text = complaint(compare, "blocks.3", values(2, 9) + 0.5, values(2, 9))
    assert text.startswith("blocks.3 does not match HuggingFace.")
    assert "difference: 0.5" in text and "[0, 0]" in text and "18 of 18" in text


def test_nothing_depends_on_torchs_defaults_and_no_input_is_changed():
    mine, theirs = values(2, 30), values(2, 30)
    off = theirs + 1e-4
    kept = [t.clone() for t in (mine, theirs, off)]
    for dtype, device in DEFAULTS:
        with defaults(dtype, device):
            board = Scoreboard("x")
            assert compare("x", mine, theirs) == 0.0
            board.compare(recorded(it=theirs), "c", "it", mine)
            complaint(compare, "x", off, theirs)
            assert "of 60" in complaint(board.compare, None, "c", "it", off, theirs)
    assert all(map(torch.equal, kept, (mine, theirs, off)))


def test_a_board_compares_whatever_it_counts():
    right, wrong = torch.ones(3), torch.ones(3) + 3e-5
    with tempfile.TemporaryDirectory() as folder:
        for name in ("smollm2-135m", "llama-3.2-1b-twin", "made up"):
            path = Path(folder) / name
            path.mkdir()
            for file in ("model.safetensors", "tokenizer.json", "model.safetensors.index.json"):
                (path / file).touch()
                compare_on_a_board(recorded(path, a=right, b=right), right, wrong)


def compare_on_a_board(ref, right: torch.Tensor, wrong: torch.Tensor) -> None:
    """Right ones count, and wrong ones never, whatever they are called and come from."""
    board = Scoreboard("Day 0")
    for component in ("logits", "norm", "every parameter, fp32", "chain"):
        text = complaint(board.compare, ref, component, "a", wrong)
        assert text.startswith(f"{ref.path.name}, a ({component}) does not match")
        complaint(board.compare, None, component, "a", wrong, right)
        complaint(board.compare, ref, component, "a", right, wrong)
    complaint(board.compare, ref, "logits", "a", right + 1e-6, rtol=0, atol=0)
    complaint(board.verdict)  # nothing of it is counted
    board.compare(ref, "logits", "a", right)
    board.compare(ref, "logits", "c", wrong, wrong.clone())
    assert board.verdict() == "Day 0: 2 tensors match HuggingFace within 1e-5"


def test_a_board_of_nothing_gives_no_verdict():
    for say in (Scoreboard.verdict, Scoreboard.__repr__, Scoreboard._repr_html_):
        assert "nothing to compare" in complaint(say, Scoreboard("Day 0"))
    complaint(Scoreboard("Day 0").compare, recorded(a=torch.ones(0)), "c", "a", torch.ones(0))


def test_a_board_tells_its_rows_apart():
    board, x = Scoreboard("Day 0"), torch.ones(4)
    board.compare(None, "gradients", "g", x, x.clone())
    for path, off in (("p", 3e-6), ("q", 0.0), ("p", 0.0)):
        board.compare(recorded(path, a=x), "norm", "a", x + off)
    board.compare(recorded("p", a=x), "chain", "a", x + 4e-5, atol=5e-5)
    board.compare(recorded("p", a=x), "steps", "a", x + 4e-5, rtol=5e-5)
    shown = repr(board).splitlines()
    assert shown[0] == (
        "Day 0: 4 tensors match HuggingFace within 1e-5, 2 more within the bar of their row"
    )
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in shown[1:]]
    assert cells == [
        ["p", "norm", "2 match", "error 3.0e-06"],
        ["q", "norm", "1 match", "bit-identical"],
        ["p", "chain, bar 5e-05 (1 + |x|)", "1 match", "error 4.0e-05"],
        ["p", "steps, bar 5e-05 (1 + |x|)", "1 match", "error 4.0e-05"],
        ["made up", "gradients", "1 match", "bit-identical"],
    ]
    page = board._repr_html_()
    for cell in ("2 match</span>, <span>error 3.0e-06", "chain, bar 5e-05", "made up</th>"):
        assert cell in page
    assert page.count(" match</span>") == 5


def test_a_folder_stands_for_a_checkpoint_of_which_nothing_is_on_record():
    board = Scoreboard("Day 8, greedy")
    board.compare(Path("weights/some-model"), "ids", "a", torch.ones(2), torch.ones(2))
    assert [row.checkpoint for row in board.rows.values()] == ["some-model"]
