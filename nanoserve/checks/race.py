"""The texts of a timed run are HuggingFace's own, alone and padded, counted exactly. Day 26."""

import copy
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nanoserve.bench.clock import Run, said_before, time_engine
from nanoserve.bench.huggingface import disagreements, padded, their_model, time_theirs, waves
from nanoserve.bench.workloads import Conversation, Turn
from nanoserve.checks.common import BF16, F32, agree, attempt, holds
from nanoserve.checks.generating import sure_ids
from nanoserve.checks.model import VOCAB
from nanoserve.checks.race_made import by_hand, check_their_model, made_models, made_talks
from nanoserve.comparison import Scoreboard
from nanoserve.engine.engine import Engine

ENGINES: dict[str, dict[str, Any]] = {
    "roomy": {},
    "cramped": {"num_blocks": 9, "max_num_seqs": 3, "max_num_batched_tokens": 24},
    "one row, no prefix caching": {"max_num_seqs": 1, "enable_prefix_caching": False},
}


def check_made_race(board: Scoreboard) -> None:
    """Four short chats on a made model: every contestant, what it counts, how it ends."""
    theirs, model = made_models()
    talks = made_talks()
    right = by_hand(theirs, talks)
    rows = attempt("padded", padded, theirs, [list(talk[0].ids) for talk in talks], 3)
    agree("how many ids a padded batch of 3 steps has", [len(ids) for ids in rows], [3] * 4)
    check_their_model(theirs)
    for rows in (1, 2, 3):
        what = f"theirs, {rows} at a time"
        run = timed_theirs(what, theirs, talks, rows)
        check_run(board, what, run, talks, right)
    for name, settings in ENGINES.items():
        engine = attempt("Engine", Engine, model, **settings)
        for waits in (True, False):
            what = f"ours, {name}" + ("" if waits else ", told of ends alone")
            run = timed_ours(what, engine, talks, waits)
            check_run(board, what, run, talks, right)
            check_times(what, run, waits)
            cached = settings.get("enable_prefix_caching", True)
            holds(f"{what}: prompt tokens from the cache", (run.cached_tokens > 0) is cached)
            check_idle(what, engine)
    check_broken(model, talks, right)
    check_disagreements(theirs, talks, run)


def timed_ours(what: str, engine: Engine, talks: Sequence[Conversation], waits: bool) -> Run:
    """Ours, by a clock that a second passes on whenever it is looked at."""
    ticks, clock = [], count(1)
    run = attempt(
        what, time_engine, engine, talks, 0.0, ticks.append, waits, lambda: float(next(clock))
    )
    check_lengths(what, run, talks)
    agree(f"{what}: new tokens, step by step", sum(ticks), run.new_tokens)
    return run


def timed_theirs(what: str, theirs: nn.Module, talks: Sequence[Conversation], rows: int) -> Run:
    """Theirs, by a clock that a second passes on with each of the model's steps."""
    ticks, steps = [], []
    hook = theirs.register_forward_pre_hook(lambda *_: steps.append(1))
    run = attempt(what, time_theirs, theirs, talks, rows, ticks.append, lambda: 3.0 + len(steps))
    hook.remove()
    check_lengths(what, run, talks)
    new = [[talks[i][turn].new for i in together] for turn, together in waves(talks, rows)]
    agree(f"{what}: new tokens, batch by batch", ticks, [*map(sum, new)])
    agree(f"{what}: seconds, one for each step of a batch", run.seconds, float(sum(map(max, new))))
    agree("times of ids, which nobody knows", (run.first, run.gaps, run.cached_tokens), ([], [], 0))
    return run


def check_lengths(what: str, run: Run, talks: Sequence[Conversation]) -> None:
    """As many ids as wanted, and so many are counted."""
    wanted = [[turn.new for turn in talk] for talk in talks]
    lengths = [[len(ids) for ids in turns] for turns in run.answers]
    agree(f"{what}: how long each answer is", lengths, wanted)
    agree(f"{what}: new tokens", run.new_tokens, sum(map(sum, wanted)))


def check_run(
    board: Scoreboard, what: str, run: Run, talks: Sequence[Conversation], right: list
) -> None:
    """The ids are HuggingFace's; what is counted is what was asked."""
    read = sum(
        len(said_before(talk, run.answers[i][:turn]))
        for i, talk in enumerate(talks)
        for turn in range(len(talk))
    )
    agree(f"{what}: prompt tokens", run.prompt_tokens, read)
    for i, turns in enumerate(right):
        for turn, (ids, steps) in enumerate(turns):
            sure = sure_ids(run.answers[i][turn], ids, steps)
            name = f"{what}: conversation {i}, turn {turn}"
            board.compare(None, "ids of a timed run", name, *sure)


def check_times(what: str, run: Run, waits: bool) -> None:
    """A first id for each turn, a gap for each other one; and all of them are in the whole."""
    turns = sum(map(len, run.answers)) if waits else 0
    others = run.new_tokens - turns if waits else 0
    agree(f"{what}: how many first ids, how many gaps", (len(run.first), len(run.gaps)),
          (turns, others))  # fmt: skip
    holds(f"{what}: no time may be negative", min([*run.first, *run.gaps, 0.0]) >= 0)
    spent = sum(run.first) + sum(run.gaps)
    most = run.seconds * len(run.answers)
    holds(f"{what}: {spent} s of waiting in {run.seconds} s with {len(run.answers)} at once",
          spent <= most and (not waits or spent > run.seconds))  # fmt: skip


def check_idle(what: str, engine: Engine) -> None:
    """Nobody runs, waits or holds a block."""
    attempt(f"{what}: the audit", engine.audit)
    holds(f"{what}: nobody may go on", not engine.has_unfinished())
    agree(f"{what}: free blocks", engine.num_free_blocks, engine.scheduler.blocks.num_blocks)


def check_broken(model: nn.Module, talks: Sequence[Conversation], right: list) -> None:
    """A run that breaks off leaves the engine idle, and the next one is as good as any."""
    engine, ticks = Engine(model), []

    def breaks(new: int) -> None:
        ticks.append(new)
        if len(ticks) == 4:
            raise KeyboardInterrupt("Ctrl-C")

    try:
        time_engine(engine, talks, 0.0, breaks)
    except KeyboardInterrupt:
        check_idle("after Ctrl-C", engine)
    else:
        raise AssertionError("time_engine: Ctrl-C must come through. It is not so.")
    run = timed_ours("a smaller run after Ctrl-C", engine, talks[:1], True)
    agree("its ids", run.answers, [[ids for ids, _ in right[0]]])
    agree("its prompt tokens", run.prompt_tokens, sum(
        len(said_before(talks[0], run.answers[0][:turn])) for turn in range(len(talks[0]))
    ))  # fmt: skip


def listed(*given: Any) -> list[tuple[str, float]]:
    """All disagreements."""
    return [*disagreements(*given)]


@torch.inference_mode()
def check_disagreements(theirs: nn.Module, talks: Sequence[Conversation], run: Run) -> None:
    """None in a run and itself; planted ones are found, at their places and with their margins."""
    agree("a run and itself", [*disagreements(theirs, talks, run, run)], [])
    answers = [[[*ids] for ids in turns] for turns in run.answers]
    planted = ((0, 2, 0), (1, 0, 4), (2, 1, 1), (3, 0, 0))  # conversation, turn, token
    for i, turn, at in (*planted, (2, 1, 3), (2, 2, 0)):  # of one conversation the first is told
        answers[i][turn][at] = (answers[i][turn][at] + 1) % VOCAB
    found = attempt("disagreements", listed, theirs, talks, Run(answers), run)
    places = [f"conversation {i}, turn {turn}, token {at}" for i, turn, at in planted]
    agree("where they are", [where for where, _ in found], places)
    other = [*disagreements(theirs, talks, run, Run(answers))]
    agree("what differs, the other way round", other, found)
    halves = copy.deepcopy(theirs).to(BF16)  # their scores are; the margin is not rounded again
    for model in (theirs, halves):
        found = attempt("disagreements", listed, model, talks, Run(answers), run)
        for (i, turn, at), (where, told) in zip(planted, found, strict=True):
            text = said_before(talks[i], run.answers[i][:turn]) + run.answers[i][turn][:at]
            scores = model(torch.tensor([text]), use_cache=False).logits[0, -1].float()
            two = scores[[run.answers[i][turn][at], answers[i][turn][at]]]
            margin = ((two[0] - two[1]).abs() / scores.abs().max()).item()
            holds(f"{where}: the margin must be a float", isinstance(told, float), repr(told))
            what = f"{where}: the margin in {model.dtype} must be {margin:.6f}"
            holds(what, abs(told - margin) < 1e-6, f"{told:.6f}")


def check_race(board: Scoreboard, path: Path) -> None:
    """Few short texts of a checkpoint: ours, theirs padded, and each alone in one pass."""
    theirs = attempt("their_model", their_model, path)
    agree("its settings", theirs.generation_config.eos_token_id, None)
    agree("its dtype, and whether it trains", (theirs.dtype, theirs.training), (F32, False))
    vocab = theirs.config.vocab_size
    talks = [(Turn(tuple(i % vocab for i in range(n, n * n, n)), 2),) for n in (7, 4)]
    ours = timed_ours("ours", Engine(path, max_num_seqs=2), talks, True)
    beside = timed_theirs("theirs, padded", theirs, talks, 2)
    for i, (turn,) in enumerate(talks):
        ids = torch.tensor([[*turn.ids, *ours.answers[i][0]]])
        with torch.inference_mode():
            steps = theirs(ids, use_cache=False).logits[0, len(turn.ids) - 1 : -1]
        best = steps.argmax(-1).tolist()
        for what, run in (("ours", ours), ("theirs, padded", beside)):
            sure = sure_ids(run.answers[i][0], best, steps)
            board.compare(path, "ids of a timed run", f"{what}: text {i}", *sure)
