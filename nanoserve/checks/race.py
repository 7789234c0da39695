"""The texts of a timed run are HuggingFace's own, alone and padded, counted exactly. Day 26."""

import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nanoserve.bench.clock import Run, said_before, time_engine
from nanoserve.bench.huggingface import disagreements, their_model, time_theirs
from nanoserve.bench.workloads import Conversation, Turn, chat
from nanoserve.checks.common import F32, agree, attempt, holds
from nanoserve.checks.generating import sure_ids, their_greedy
from nanoserve.checks.model import VARIANTS, VOCAB, make
from nanoserve.checks.model_loading import load
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.engine.engine import Engine
from nanoserve.model import Llama
from nanoserve.reference import transformers

ENGINES: dict[str, dict[str, Any]] = {
    "roomy": {},
    "cramped": {"num_blocks": 9, "max_num_seqs": 3, "max_num_batched_tokens": 24},
    "one row, no prefix caching": {"max_num_seqs": 1, "enable_prefix_caching": False},
}


def fitted(conversations: Sequence[Conversation], vocab: int) -> list[Conversation]:
    """The same conversations in the ids of a small vocabulary."""
    return [
        tuple(Turn(tuple(i % vocab for i in turn.ids), turn.new) for turn in talk)
        for talk in conversations
    ]


def made_models() -> tuple[nn.Module, Llama]:
    """A made model as HuggingFace has it, and as we do."""
    theirs = make(VARIANTS[0] | {"max_position_embeddings": 128}).eval()
    theirs.generation_config = transformers.GenerationConfig()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(Path(folder) / MADE_UP)
        return theirs, load(Path(folder) / MADE_UP)


def check_made_race(board: Scoreboard) -> None:
    """Three short chats on a made model: every contestant, what it counts, how it ends."""
    theirs, model = made_models()
    talks = fitted([talk[:3] for talk in chat(19, 0, 64)], VOCAB)
    right = by_hand(theirs, talks)
    for rows in (1, 2, 3):
        what = f"theirs, {rows} at a time"
        run = attempt(what, timed_theirs, theirs, talks, rows)
        check_run(board, what, run, talks, right)
    for name, settings in ENGINES.items():
        engine = attempt("Engine", Engine, model, **settings)
        for waits in (True, False):
            what = f"ours, {name}" + ("" if waits else ", told of ends alone")
            run = attempt(what, timed_ours, engine, talks, waits)
            check_run(board, what, run, talks, right)
            check_times(what, run, waits)
            cached = settings.get("enable_prefix_caching", True)
            holds(f"{what}: prompt tokens from the cache", (run.cached_tokens > 0) is cached)
            check_idle(what, engine)
    check_broken(model, talks, right)
    check_disagreements(theirs, talks, run)


def by_hand(theirs: nn.Module, talks: Sequence[Conversation]) -> list[list[tuple]]:
    """Each turn's ids and scores, by HuggingFace's generate, alone and without a cache."""
    found = []
    for talk in talks:
        ids, turns = [], []
        for turn in talk:
            ids += turn.ids
            turns.append(their_greedy(theirs, ids, turn.new, ()))
            ids += turns[-1][0]
        found.append(turns)
    return found


def timed_ours(engine: Engine, talks: Sequence[Conversation], waits: bool) -> Run:
    """Ours, by a clock that a second passes on whenever it is looked at."""
    ticks, clock = [], count(1)
    run = time_engine(engine, talks, 0.0, ticks.append, waits, lambda: float(next(clock)))
    agree("new tokens, step by step", sum(ticks), run.new_tokens)
    return run


def timed_theirs(theirs: nn.Module, talks: Sequence[Conversation], rows: int) -> Run:
    """Theirs, by a clock that is looked at twice."""
    ticks, times = [], iter((3.0, 5.5))
    run = time_theirs(theirs, talks, rows, ticks.append, lambda: next(times))
    agree("new tokens, batch by batch", sum(ticks), run.new_tokens)
    agree("seconds", run.seconds, 2.5)
    agree("times of ids, which nobody knows", (run.first, run.gaps, run.cached_tokens), ([], [], 0))
    return run


def check_run(
    board: Scoreboard, what: str, run: Run, talks: Sequence[Conversation], right: list
) -> None:
    """As many ids as wanted, and they are HuggingFace's; what is counted is what was asked."""
    wanted = [[turn.new for turn in talk] for talk in talks]
    lengths = [[len(ids) for ids in turns] for turns in run.answers]
    agree(f"{what}: how long each answer is", lengths, wanted)
    agree(f"{what}: new tokens", run.new_tokens, sum(map(sum, wanted)))
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
    run = attempt("a smaller run after Ctrl-C", timed_ours, engine, talks[:1], True)
    agree("its ids", run.answers, [[ids for ids, _ in right[0]]])
    agree("its prompt tokens", run.prompt_tokens, sum(
        len(said_before(talks[0], run.answers[0][:turn])) for turn in range(len(talks[0]))
    ))  # fmt: skip


@torch.inference_mode()
def check_disagreements(theirs: nn.Module, talks: Sequence[Conversation], run: Run) -> None:
    """None in a run and itself; a planted one is found, at its place and with its margin."""
    agree("a run and itself", [*disagreements(theirs, talks, run, run)], [])
    answers = [[[*ids] for ids in turns] for turns in run.answers]
    answers[1][1][2] = wrong = (answers[1][1][2] + 1) % VOCAB
    answers[1][2] = [0] * len(answers[1][2])  # another text by then, not to be told of
    answers[2][0][0] = (answers[2][0][0] + 1) % VOCAB
    found = attempt("disagreements", lambda: [*disagreements(theirs, talks, Run(answers), run)])
    places = [where for where, _ in found]
    agree("where they are", places,
          ["conversation 1, turn 1, token 2", "conversation 2, turn 0, token 0"])  # fmt: skip
    text = said_before(talks[1], run.answers[1][:1]) + run.answers[1][1][:2]
    scores = theirs(torch.tensor([text]), use_cache=False).logits[0, -1]
    margin = (scores[run.answers[1][1][2]] - scores[wrong]).abs() / scores.abs().max()
    off = abs(found[0][1] - margin.item())
    holds(f"the margin must be {margin.item():.6f}", off < 1e-6, f"it is {found[0][1]:.6f}")


def check_race(board: Scoreboard, path: Path) -> None:
    """Few short texts of a checkpoint: ours, theirs padded, and each alone in one pass."""
    theirs = attempt("their_model", their_model, path)
    agree("its settings", theirs.generation_config.eos_token_id, None)
    agree("its dtype, and whether it trains", (theirs.dtype, theirs.training), (F32, False))
    vocab = theirs.config.vocab_size
    talks = fitted([(Turn(tuple(range(n, n * n, n)), 2),) for n in (7, 4)], vocab)
    ours = attempt("ours", timed_ours, Engine(path, max_num_seqs=2), talks, True)
    beside = attempt("theirs, padded", timed_theirs, theirs, talks, 2)
    for i, (turn,) in enumerate(talks):
        ids = torch.tensor([[*turn.ids, *ours.answers[i][0]]])
        with torch.inference_mode():
            steps = theirs(ids, use_cache=False).logits[0, len(turn.ids) - 1 : -1]
        best = steps.argmax(-1).tolist()
        for what, run in (("ours", ours), ("theirs, padded", beside)):
            sure = sure_ids(run.answers[i][0], best, steps)
            board.compare(path, "ids of a timed run", f"{what}: text {i}", *sure)
