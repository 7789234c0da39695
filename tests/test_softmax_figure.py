"""The interactive figure of Day 23 adds tiles up as the page's torch code does."""

import itertools
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

BOOK = Path(__file__).resolve().parents[1] / "book"
FIGURE = BOOK / "_static" / "softmax.html"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")
RUN = """
const sets = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify({ HEADS, all: sets.map((set) => {
  const run = machine(set);
  return { run, drawn: run.steps.map((_, i) =>
    [bars(set, run, i + 1), line(set, run, i + 1), words(set, run, i + 1)]) };
}) }, (key, value) => value === -Infinity ? "none" : value));
"""
SLIPS = ("mix", "sum", "mean", "tail")
SETS = [
    {"head": head, "tile": tile, "parts": parts, **dict(zip(SLIPS, slips, strict=True))}
    for head, tile, parts in itertools.product(range(3), (4, 8, 16, 32, 64), (1, 2, 3, 4))
    for slips in (
        (0, 0, 0, 0),
        (1, 0, 0, 0),
        (0, 1, 0, 0),
        (0, 0, 1, 0),
        (0, 0, 0, 1),
        (1, 1, 0, 0),
    )
]


def script() -> str:
    """The part of the figure that computes and draws, and asks for no page."""
    return FIGURE.read_text("utf-8").split("Begin.\n")[1].split("    // End.")[0]


@pytest.fixture(scope="module")
def found() -> dict:
    run = subprocess.run(
        [NODE, "-e", script() + RUN], input=json.dumps(SETS), capture_output=True, text=True
    )
    assert not run.returncode, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def page() -> str:
    """The cell of the page that adds tiles up."""
    cells = json.loads((BOOK / "day23.ipynb").read_text("utf-8"))["cells"]
    (source,) = (s for c in cells if (s := "".join(c["source"])).startswith("def plus_tile"))
    return source


def by_the_page(source: str, head: dict, mix: bool, sum: bool, tail: bool, tile: int, parts: int):
    """Of each part what is known after each tile, by the page's code, with its slips planted."""
    for slip, old, new in ((mix, "mix * fade[:, None]", "mix"), (sum, "total * fade", "total")):
        assert source.count(old) == 1
        source = source.replace(old, new) if slip else source
    names = {"torch": torch}
    exec(source, names)
    scores, values = (torch.tensor(head[name]) for name in ("scores", "values"))
    if tail:
        zeros = torch.zeros(-len(scores) % tile)
        scores, values = torch.cat([scores, zeros]), torch.cat([values, zeros])
    tiles = -(-len(scores) // tile)
    each = -(-tiles // parts) * tile
    pieces = zip(scores.split(each), values.split(each), strict=True)
    return [[*names["by_tiles"](s[None], v[:, None], tile)] for s, v in pieces]


@pytest.mark.parametrize("mean", [0, 1])
def test_its_steps_are_the_pages(found, page, mean):
    for asked, one in zip(SETS, found["all"], strict=True):
        if asked["mean"] != mean:
            continue
        head, cut = found["HEADS"][asked["head"]], (asked["tile"], asked["parts"])
        known = by_the_page(page, head, asked["mix"], asked["sum"], asked["tail"], *cut)
        mine = [step for part in known for step in part]
        assert len(mine) == len(one["run"]["steps"]), asked
        for (top, total, _), step in zip(mine, one["run"]["steps"], strict=True):
            assert step["top"] == pytest.approx(top.item(), abs=1e-6)
            assert step["total"] == pytest.approx(total.item(), rel=1e-5)
        last = [part[-1] for part in known]
        if mean:
            wanted = sum((mix / total[:, None]).item() for _, total, mix in last) / len(last)
        else:
            highest = max(top.item() for top, *_ in last)
            weights = [(top - highest).exp().item() for top, *_ in last]
            wanted = sum(w * mix.item() for w, (*_, mix) in zip(weights, last, strict=True))
            wanted /= sum(w * n.item() for w, (_, n, _) in zip(weights, last, strict=True))
        assert one["run"]["steps"][-1]["out"] == pytest.approx(wanted, rel=2e-4, abs=1e-5), asked


def test_the_truth_is_the_softmax_and_only_slips_miss_it(found):
    for asked, one in zip(SETS, found["all"], strict=True):
        head, run = found["HEADS"][asked["head"]], one["run"]
        scores, values = torch.tensor([head["scores"], head["values"]], dtype=torch.float64)
        assert run["truth"] == pytest.approx((scores.softmax(0) @ values).item(), rel=1e-12)
        off = abs(run["steps"][-1]["out"] - run["truth"])
        tail, many = asked["tail"] and asked["tile"] > 4, len({s["part"] for s in run["steps"]}) > 1
        rescales = (asked["mix"] or asked["sum"]) and asked["tile"] * asked["parts"] < 32
        if not any(asked[name] for name in SLIPS):
            assert off < 1e-12, asked
        elif asked["head"] == 0 and (tail or (asked["mean"] and many) or rescales):
            assert off > 1e-6, asked
        elif asked["head"] == 1 and asked["parts"] == 1 and not tail:  # a sink forgives
            assert off < 1e-12, asked


def test_what_it_says_and_draws_is_what_it_computes(found):
    for asked, one in zip(SETS, found["all"], strict=True):
        steps = one["run"]["steps"]
        for number, (step, (bars, line, said)) in enumerate(
            zip(steps, one["drawn"], strict=True), 1
        ):
            assert said.startswith(f"Step {number} of {len(steps)}"), asked
            read = sum(min(s["end"], 60) - s["start"] for s in steps[:number])
            assert bars.count('class="later"') == 60 - read
            assert bars.count('class="tail"') == max(0, min(step["end"], 64) - 60)
            assert line.count("<circle") + line.count('class="wrong"') == number
            rescaled = step["was"] != "none" and step["fade"] < 1
            assert ("is worth" in said) == rescaled
        off = abs(steps[-1]["out"] - one["run"]["truth"])
        assert said.endswith("Right." if off <= 0.0005 else f"Wrong by {off:.3f}."), said


def test_the_picture_without_a_script_is_the_scripts_own():
    show = (
        "const set = begin(), run = machine(set);"
        "console.log(JSON.stringify([bars(set, run, 5), line(set, run, 5), words(set, run, 5)]))"
    )
    run = subprocess.run([NODE, "-e", script() + show], capture_output=True, text=True, check=True)
    before = FIGURE.read_text("utf-8").split("<script>")[0]
    for drawn in json.loads(run.stdout):
        assert f">{drawn}<" in before
