"""The interactive figure of Day 16 runs the scheduler's own algorithm: both on random mixes."""

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from nanoserve.engine.blocks import BlockManager
from nanoserve.engine.request import Request
from nanoserve.engine.scheduler import Scheduler
from nanoserve.sampling import SamplingParams

FIGURE = Path(__file__).resolve().parents[1] / "book" / "_static" / "scheduler.html"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")
RUN = """
const mixes = JSON.parse(require("fs").readFileSync(0, "utf8"));
const names = (mix) => mix.requests.map((r) => r.name);
console.log(JSON.stringify(mixes.map((mix) => {
  const sim = simulate(mix);
  return { sim, drawn: sim.steps.map((_, now) =>
    [timeline(sim, names(mix), now), pool(sim, mix, now), words(sim, mix, now)]) };
})));
"""


def script() -> str:
    """The part of the figure that computes and draws, and asks for no page."""
    return FIGURE.read_text("utf-8").split("Begin.\n")[1].split("    // End.")[0]


def in_javascript(mixes: list[dict]) -> list[dict]:
    run = subprocess.run(
        [NODE, "-e", script() + RUN], input=json.dumps(mixes), capture_output=True, text=True
    )
    assert not run.returncode, run.stderr
    return json.loads(run.stdout)


def in_python(mix: dict) -> dict:
    """The same, by the scheduler itself."""
    blocks = BlockManager(mix["blocks"], mix["size"])
    scheduler = Scheduler(blocks, mix["rows"], mix["budget"])
    steps, refused, todo = [], [], list(mix["requests"])
    while todo or scheduler.running or scheduler.waiting:
        for asked in [one for one in todo if one["at"] <= len(steps)]:
            params = SamplingParams(max_tokens=asked["new"])
            try:
                scheduler.add(Request(asked["name"], (1,) * asked["prompt"], params))
            except ValueError:
                refused.append(asked["name"])
        todo = [one for one in todo if one["at"] > len(steps)]
        plan = scheduler.schedule()
        steps.append(
            {
                "shares": [
                    {
                        "name": share.request.request_id,
                        "start": share.start,
                        "n": len(share.ids),
                        "samples": share.samples,
                    }
                    for share in plan.shares
                ],
                "preempted": [request.request_id for request in plan.preempted],
                "waiting": [request.request_id for request in scheduler.waiting],
                "free": list(blocks.queue),
                "tables": {r.request_id: list(r.table) for r in scheduler.running},
            }
        )
        scheduler.update(plan, [1] * len(plan.sampling))
    return {"steps": steps, "refused": refused}


def random_mix(seed: int) -> dict:
    """What the sliders can say, cramped as often as not."""
    draw = random.Random(seed)
    requests = [
        {
            "name": name,
            "at": draw.randint(0, 20) * draw.randint(0, 1),
            "prompt": draw.choice((1, 8, draw.randint(1, 96))),
            "new": draw.randint(1, 60),
        }
        for name in "ABCDEFGH"
    ]
    return {
        "rows": draw.randint(1, 8),
        "budget": draw.choice((1, 7, 32, 64)),
        "size": draw.choice((1, 2, 4, 8, 16, 32)),
        "blocks": draw.randint(1, 48),
        "requests": requests,
    }


def test_both_plan_the_same_steps():
    mixes = [random_mix(seed) for seed in range(40)]
    wanted = [in_python(mix) for mix in mixes]
    for mix, theirs, mine in zip(mixes, in_javascript(mixes), wanted, strict=True):
        assert theirs["sim"] == mine, mix
    stopped = sum(len(step["preempted"]) for mine in wanted for step in mine["steps"])
    assert stopped > 20 and any(mine["refused"] for mine in wanted)
    assert any(not step["shares"] for mine in wanted for step in mine["steps"])  # idle for a while


def test_what_it_says_is_what_it_computes():
    mix = random_mix(3)
    (both,) = in_javascript([mix])
    for number, (step, drawn) in enumerate(
        zip(both["sim"]["steps"], both["drawn"], strict=True), 1
    ):
        time, pool, said = drawn
        assert said.startswith(f"Step {number} of {len(both['drawn'])}.")
        assert said.endswith(f"Free: {len(step['free'])} of {mix['blocks']} blocks.")
        assert pool.count('class="block held"') == mix["blocks"] - len(step["free"])
        for share in step["shares"]:
            assert share["name"] in said
        assert time.count('class="gone"') == sum(
            len(one["preempted"]) for one in both["sim"]["steps"]
        )


def test_it_begins_with_the_eight_requests_of_the_page():
    begin = "const mixes = [begin()]; console.log(JSON.stringify([mixes[0], simulate(mixes[0])]));"
    run = subprocess.run([NODE, "-e", script() + begin], capture_output=True, text=True, check=True)
    mix, sim = json.loads(run.stdout)
    assert [one["new"] for one in mix["requests"]] == [8, 64, 16, 16, 40, 8, 24, 56]
    assert len(sim["steps"]) == 80 and sim == in_python(mix)
    mix["requests"].sort(key=lambda one: -one["new"])
    assert len(in_javascript([mix])[0]["sim"]["steps"]) == 64


def test_the_picture_without_a_script_is_the_scripts_own():
    show = (
        "const mix = begin(), sim = simulate(mix), all = mix.requests.map((r) => r.name);"
        "const drawn = [timeline(sim, all, 39), pool(sim, mix, 39), words(sim, mix, 39)];"
        "console.log(JSON.stringify(drawn))"
    )
    run = subprocess.run([NODE, "-e", script() + show], capture_output=True, text=True, check=True)
    before = FIGURE.read_text("utf-8").split("<script>")[0]
    for drawn in json.loads(run.stdout):
        assert f">{drawn}<" in before
