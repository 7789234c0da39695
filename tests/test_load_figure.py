"""The interactive figure of Day 21 is the queue of bench/queueing.py: both on many mixes."""

import json
import math
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from nanoserve.bench.load import percentile
from nanoserve.bench.queueing import Server, closed_loop, open_loop

FIGURE = Path(__file__).resolve().parents[1] / "book" / "_static" / "load.html"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")
UNTIL, STALL, NONE = 300, (100.0, 130.0), 31
RUN = """
const waits = draws(4000), sets = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify({ waits, all: sets.map((set) => {
  const times = simulate(set, waits);
  return { times, numbers: numbers(times), strip: strip(times, set), said: words(times, set) };
}) }, (key, value) => value === Infinity ? "never" : value));
"""


def script() -> str:
    """The part of the figure that computes and draws, and asks for no page."""
    return FIGURE.read_text("utf-8").split("Begin.\n")[1].split("    // End.")[0]


def in_javascript(sets: list[dict]) -> tuple[list[float], list[dict]]:
    run = subprocess.run(
        [NODE, "-e", script() + RUN], input=json.dumps(sets), capture_output=True, text=True
    )
    assert not run.returncode, run.stderr
    found = json.loads(run.stdout)
    return found["waits"], found["all"]


def in_python(mix: dict, waits: list[float]) -> list[tuple]:
    """The same by the book's own queue."""
    bound = None if mix["bound"] == NONE else mix["bound"]
    stall = STALL if mix["stall"] else (0.0, 0.0)
    server = Server(1.0, mix["slots"], bound, stall)
    if mix["closed"]:
        return closed_loop(server, mix["slots"], UNTIL)
    due, at = [], 0.0
    for wait in waits:
        at += wait / (mix["load"] / 100 * mix["slots"])
        if at >= UNTIL:
            return open_loop(server, due)
        due.append(at)
    raise AssertionError("too few waits")


def mixes() -> list[dict]:
    """What the controls can say."""
    draw = random.Random(0)
    return [
        {
            "load": 5 * draw.randint(1, 24),
            "slots": draw.choice((1, 1, 2, 3, 8)),
            "bound": draw.choice((NONE, NONE, 0, 1, 5, 30)),
            "closed": draw.random() < 0.25,
            "stall": draw.random() < 0.5,
        }
        for _ in range(40)
    ]


def test_both_answer_at_the_same_times():
    waits, all_of_them = in_javascript(mixes())
    refused = 0
    for mix, theirs in zip(mixes(), all_of_them, strict=True):
        mine = in_python(mix, waits)
        assert [tuple(pair) for pair in theirs["times"]] == mine, mix
        times = [math.inf if end is None else end - at for at, end in mine]
        refused += times.count(math.inf)
        for name in ("p50", "p99"):
            wanted = percentile(times, int(name[1:]))
            assert theirs["numbers"][name] == ("never" if math.isinf(wanted) else wanted)
        assert theirs["numbers"]["goodput"] == sum(t <= 3 for t in times) / UNTIL
        assert theirs["numbers"]["count"] == len(times)
    assert refused > 100


def test_its_waits_are_those_of_chance():
    waits, _ = in_javascript([])
    assert len(waits) == 4000 and min(waits) >= 0
    assert abs(sum(waits) / 4000 - 1) < 0.05
    assert abs(sum(wait > 1 for wait in waits) / 4000 - 1 / math.e) < 0.02


def test_what_it_says_and_draws_is_what_it_computes():
    sets = [*mixes(), {"load": 80, "slots": 1, "bound": NONE, "closed": False, "stall": False}]
    _, found = in_javascript(sets)
    for mix, one in zip(sets, found, strict=True):
        times, said = one["times"], one["said"]
        gone = sum(end is None for _, end in times)
        assert f" {len(times)} requests, {gone} refused. " in said
        assert ("stands still for 30 s" in said) == mix["stall"]
        assert said.startswith("Closed loop" if mix["closed"] else "Open loop")
        assert ('class="stall"' in one["strip"]) == mix["stall"]
        every = math.ceil(len(times) / 360)
        drawn = one["strip"].count("h0") + one["strip"].count("v6")
        assert drawn == len(times[::every])
    assert "the formula says 3.0 s" in found[-1]["said"]


def test_the_picture_without_a_script_is_the_scripts_own():
    show = (
        "const set = begin(), times = simulate(set, draws(4000));"
        "console.log(JSON.stringify([strip(times, set), words(times, set)]))"
    )
    run = subprocess.run([NODE, "-e", script() + show], capture_output=True, text=True, check=True)
    before = FIGURE.read_text("utf-8").split("<script>")[0]
    for drawn in json.loads(run.stdout):
        assert f">{drawn}<" in before
