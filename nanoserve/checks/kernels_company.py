"""T1 to T5 for an engine that plans ahead: company, pools, chunks, blocks, aborts. Day 24."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from nanoserve.checks.common import agree, attempt, holds, must_raise
from nanoserve.checks.generating import sure_ids, their_model
from nanoserve.checks.kernels_ahead import END, Told, ahead, asked, beside, check_told, play
from nanoserve.checks.serving import watched
from nanoserve.checks.serving_mix import mix_of, steps_of, with_their_weights
from nanoserve.comparison import Scoreboard
from nanoserve.engine.plan import Plan
from nanoserve.kernels.runner import plain
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams

MODES: dict[str, dict[str, Any]] = {
    "roomy": {},
    "in a cramped pool": {"num_blocks": 7},
    "cramped, no cache": {"num_blocks": 7, "caching": False},
    "in chunks of 2": {"budget": 2},
    "in blocks of 1": {"size": 1, "num_blocks": 26},
    "in blocks of 3": {"size": 3, "num_blocks": 12},
    "in blocks of 16": {"size": 16, "num_blocks": 3, "budget": 30},
    "one at a time": {"rows": 1},
}


def check_modes(board: Scoreboard, theirs: nn.Module, model: Llama) -> None:
    """Told as Day 16's engine tells it, in every mode; the greedy ones are HuggingFace's."""
    known: dict[tuple, torch.Tensor] = {}
    told: dict[tuple, Told] = {}  # by Day 16's engine, whose answers are the same in every mode
    for number, (mode, settings) in enumerate(MODES.items()):
        kind = number % 2, mode == "roomy"
        requests = asked(number % 2, 8, special=mode == "roomy")
        if kind not in told:
            told[kind] = play(beside(model), requests)
        mine = play(ahead(model, **settings), requests)
        check_told(mode, mine, told[kind])
        for name, prompt, params in requests:
            if params.temperature or not plain(params):
                continue
            ids = mine[name][-1].token_ids
            text = (*prompt, *ids)
            if text not in known:
                known[text] = steps_of(theirs, prompt, ids)
            wanted = known[text].argmax(-1).tolist()
            board.compare(
                None, "ids, a step ahead", f"{name} {mode}", *sure_ids(ids, wanted, known[text])
            )
            reason = "stop" if ids[-1] == END else "length"
            agree(f"{name} {mode}: reason", mine[name][-1].finish_reason, reason)
            agree(f"{name} {mode}: ids before the end", END in ids[:-1], False)


def check_lag(model: Llama) -> None:
    """A step starts before the one before it is known, and no step is lost or told too late."""
    engine, happened = ahead(model), []
    launch = engine.runner.launch

    def watched_launch(plan: Plan) -> SimpleNamespace:
        due, number = launch(plan), sum(what == "start" for what, _ in happened) + 1
        happened.append(("start", number))

        def result() -> tuple:
            happened.append(("known", number))
            return due.result()

        return SimpleNamespace(result=result)

    engine.runner.launch = watched_launch
    engine.add_request("a", [1, 2, 5], SamplingParams(temperature=0, max_tokens=3, ignore_eos=True))
    told, unfinished = [], []
    for _ in range(4):
        unfinished.append(engine.has_unfinished())
        told.append([len(output.token_ids) for output in attempt("step", engine.step)])
    agree("tokens told by each step", told, [[], [1], [2], [3]])
    unfinished.append(engine.has_unfinished())
    agree("unfinished before each step, and after it ended", unfinished, [True] * 4 + [False])
    wanted = [("start", 1), ("start", 2), ("known", 1), ("start", 3), ("known", 2), ("known", 3)]
    agree("what happened", happened, wanted)


def check_endings(model: Llama) -> None:
    """Ends by an id: at the last place, at a surprise with a namesake, and under an audit."""
    greedy = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)
    ids = play(beside(model), [("a", [7, 8], greedy)])["a"][-1].token_ids
    for place in range(5):
        if ids.index(ids[place]) != place:
            continue  # it comes before
        params = replace(greedy, stop_token_ids=(ids[place],))
        told = play(ahead(model), [("a", [7, 8], params)])["a"][-1]
        agree(
            f"ends by id {place} of 5",
            (told.token_ids, told.finish_reason),
            (ids[: place + 1], "stop"),
        )
    engine, first = ahead(model), replace(greedy, stop_token_ids=(ids[0],))
    engine.add_request("a", [7, 8], first)
    while not (outputs := attempt("step", engine.step)):
        pass
    agree("the first one's end", outputs[0].finish_reason, "stop")
    agree("unfinished, where nobody waits for what runs", engine.has_unfinished(), False)
    engine.add_request("a", [7, 8], greedy)  # while the step that nobody waits for is on its way
    outputs = play(engine, []).get("a", [])
    agree("ids of its namesake", [o.token_ids for o in outputs], [ids[:n] for n in range(1, 6)])
    engine.add_request("b", [7, 8], replace(greedy, max_tokens=1))
    attempt("step", engine.step)
    attempt("audit", engine.audit)
    holds("what an audit settled must still be told", engine.has_unfinished())
    agree("told after an audit", [o.token_ids for o in attempt("step", engine.step)], [ids[:1]])
    engine.add_request("c", [7, 8], greedy)
    attempt("step", engine.step)
    agree("an abort of nobody", engine.abort("nobody"), False)
    agree("an abort of one that runs", engine.abort("c"), True)
    ends = [(o.token_ids, o.finish_reason) for o in attempt("step", engine.step)]
    agree("told after an abort", ends, [(ids[:1], None), (ids[:1], "abort")])
    engine.scheduler.blocks.queue.popitem()  # a block is lost
    must_raise(AssertionError, "audit of books that are false", engine.audit)


def check_aborts(model: Llama) -> None:
    """At any step: told of once, by the next one; what is told before it is true."""
    mixes = [asked(seed, 5, special=False) for seed in range(3)]
    told_alone = [play(beside(model), mix) for mix in mixes]
    for when in range(12):
        requests, alone = mixes[when % 3], told_alone[when % 3]
        told = play(ahead(model, num_blocks=9), requests, [(when, "r1"), (when, "r3")])
        for name, outputs in told.items():
            what, last = f"{name}, aborts at step {when}", outputs[-1]
            ends = [output.finished for output in outputs]
            agree(f"{what}: finished, of each step", ends, [False] * (len(ends) - 1) + [True])
            whole = alone[name][-1]
            if last.finish_reason == "abort":
                holds(f"{what}: it was asked for", name in ("r1", "r3"))
                agree(what, last.token_ids, whole.token_ids[: len(last.token_ids)])
            else:
                agree(
                    what,
                    (last.token_ids, last.finish_reason),
                    (whole.token_ids, whole.finish_reason),
                )


def check_only_ended(model: Llama) -> None:
    """Who asks for the ended alone is told of each once."""
    requests = asked(3, 6, special=True)
    whole = play(beside(model), requests)
    for engine in (ahead(model), beside(model)):
        told = play(engine, requests, only_ended=True)
        agree("outputs of each that ended", {len(outputs) for outputs in told.values()}, {1})
        for name, (output,) in told.items():
            agree(f"{name}, told when it ended", output.token_ids, whole[name][-1].token_ids)


def check_company(board: Scoreboard, theirs: nn.Module, model: Llama) -> None:
    """The lag, ends and company of all kinds, aborts, and who asks for the ended alone."""
    check_lag(model)
    check_endings(model)
    check_modes(board, theirs, model)
    check_aborts(model)
    check_only_ended(model)


def compare_real(board: Scoreboard, path: Path) -> float:
    """Two real prompts on a checkpoint, a step ahead and cramped; the smallest margin met."""
    theirs, margins = their_model(path), []
    model = with_their_weights(theirs, path)
    mix = mix_of(path, theirs.config.vocab_size)[:2]
    engine = ahead(model, num_blocks=8, size=3, rows=2, budget=7)
    engine.eos_ids = ()
    scores = watched(engine)
    mine = play(engine, [(str(i), *request) for i, request in enumerate(mix)])
    for i, (prompt, params) in enumerate(mix):
        name, output = f"prompt {i}, a step ahead", mine[str(i)][-1]
        wanted = steps_of(theirs, prompt, output.token_ids)
        two, ids = wanted.topk(2).values, wanted.argmax(-1).tolist()
        margins.append((two[:, 0] - two[:, 1]).min().item())
        board.compare(path, "ids, a step ahead", name, *sure_ids(output.token_ids, ids, wanted))
        agree(f"{name}: number of ids", len(output.token_ids), params.max_tokens)
        rows, top = torch.stack(scores[str(i)]), wanted.abs().max()
        board.compare(path, "scores, a step ahead", name, rows / top, wanted / top)
    return min(margins)
