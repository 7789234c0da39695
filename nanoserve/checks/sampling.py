"""What `process` makes of scores, held against HuggingFace's own generation: Day 9."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nanoserve.checks.common import BF16, F32, agree, attempt, holds, must_raise
from nanoserve.checks.generating import greedy_prompts
from nanoserve.checks.sampling_cases import FIELDS, SETTINGS, awkward_rows, crossed, histories
from nanoserve.comparison import Scoreboard
from nanoserve.reference import transformers
from nanoserve.sampling import History, SamplingParams, process

EXACT = {"rtol": 0.0, "atol": 0.0}


@torch.no_grad()
def their_sampling(
    model: nn.Module, prompt: Sequence[int], params: SamplingParams, eos: Collection[int]
) -> tuple[list[int], torch.Tensor, torch.Tensor]:
    """What HuggingFace's `generate` drew, from what (n, V), and what it made of that (n, V)."""
    ids = torch.tensor([list(prompt)])
    settings = transformers.GenerationConfig(
        do_sample=True,
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p or None,
        repetition_penalty=params.repetition_penalty,
        min_new_tokens=params.min_tokens,
        max_new_tokens=4,
        eos_token_id=list(eos),
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
        output_scores=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(len(prompt))
        mask = torch.ones_like(ids)
        out = model.generate(ids, attention_mask=mask, generation_config=settings)
    new = out.sequences[0, ids.shape[1] :].tolist()
    return new, torch.cat(out.logits), torch.cat(out.scores)


def sampling_prompts(path: Path) -> Iterator[tuple[list[int], SamplingParams, tuple[int, ...]]]:
    """Prompts with what is asked, and ids that end a text."""
    for (prompt, _, stops), asked in zip(greedy_prompts(path), SETTINGS, strict=True):
        yield prompt, SamplingParams(**asked), stops or (30, 2)


def compare_scores(
    board: Scoreboard,
    ref: Any,
    what: str,
    name: str,
    mine: Any,
    theirs: torch.Tensor,
    asked: Sequence[SamplingParams] = (),
    **bar: float,
) -> None:
    """Their kept tokens exactly, and their scores of these, to the bit if no bar is given.

    `asked`, the rows' parameters, are told where a row differs.
    """
    holds(f"{name}: scores must be a tensor", isinstance(mine, torch.Tensor))
    agree(f"{name}: dtype and shape", (mine.dtype, mine.shape), (F32, theirs.shape))
    for row, (ours, wanted) in enumerate(zip(mine, theirs, strict=True)):
        a, b = set(kept(ours)), set(kept(wanted))
        if a != b:
            told = f" ({settings(asked[row])})" if asked else ""
            equal = "; as many, but others: sort by x.argsort(), and put them back in their places"
            raise AssertionError(
                f"{name}, row {row}{told}: nanoserve keeps {len(a)} tokens and HuggingFace "
                f"{len(b)}; kept and must not be {sorted(a - b)[:5]}, missing {sorted(b - a)[:5]}"
                + (equal if len(a) == len(b) > 1 else "")
            )
    shown = [x.masked_fill(x == -torch.inf, 0.0) for x in (mine, theirs)]
    board.compare(ref, what, name, *shown, **(bar or EXACT))


def settings(params: SamplingParams) -> str:
    """The fields that are not as SamplingParams has them by itself."""
    plain = vars(SamplingParams())
    return ", ".join(f"{k}={v}" for k, v in vars(params).items() if v != plain[k]) or "all off"


def kept(x: torch.Tensor) -> list[int]:
    """The tokens that are not excluded."""
    return (x != -torch.inf).nonzero().flatten().tolist()


def their_process(
    x: torch.Tensor, params: SamplingParams, history: History, eos: Collection[int]
) -> torch.Tensor:
    """One row (V,) through HuggingFace's processors, in the order of its `generate`.

    It has no presence or frequency penalty: these are as OpenAI's API defines them, token by token.
    """
    made, (prompt, output) = transformers.generation.logits_process, history
    x, ids = x[None].float().clone(), torch.tensor([[*prompt, *output]]).long()
    if params.repetition_penalty != 1:
        x = made.RepetitionPenaltyLogitsProcessor(params.repetition_penalty)(ids, x)
    for token, times in Counter(output).items():
        x[0, token] -= params.frequency_penalty * times
        x[0, token] -= params.presence_penalty
    stops = {*params.stop_token_ids, *(() if params.ignore_eos else eos)}
    if params.min_tokens and stops:
        held = made.MinNewTokensLengthLogitsProcessor
        x = held(len(prompt), params.min_tokens, sorted(stops))(ids, x)
    if params.temperature < 1e-5:  # greedy, as vLLM has it
        best = x[0].tolist().index(x.max().item())
        return torch.full_like(x[0], -torch.inf).index_copy(
            0, torch.tensor([best]), x[0, best, None]
        )
    if params.temperature != 1:
        x = made.TemperatureLogitsWarper(params.temperature)(ids, x)
    if params.top_k > 0:
        x = made.TopKLogitsWarper(params.top_k)(ids, x)
    if params.top_p < 1:
        x = made.TopPLogitsWarper(params.top_p)(ids, x)
    if params.min_p > 0:
        x = made.MinPLogitsWarper(params.min_p)(ids, x)
    return x[0]


def check_process(board: Scoreboard, ref: Any, scores: torch.Tensor, rows: int) -> None:
    """Rows of scores (N, V) in turn, each with other parameters, in calls of twelve."""
    logits = scores[torch.arange(rows) % len(scores)]  # (rows, V)
    params, told = crossed(rows), histories(rows, logits.shape[-1])
    before = [(list(a), list(b)) for a, b in told]
    for at in range(0, rows, 12):
        part = slice(at, at + 12)
        given = logits[part].clone(), params[part], told[part], (2, 9)
        mine = attempt("process", process, *given)
        wanted = [their_process(*row, (2, 9)) for row in zip(*given[:3], strict=True)]
        name = f"fields crossed, rows from {at}"
        wanted, what = torch.stack(wanted), "fields crossed"
        compare_scores(board, ref, what, name, mine, wanted, params[part], atol=1e-5)
        again = process(given[0][1:2], given[1][1:2], given[2][1:2], (2, 9))
        holds(
            "a row alone must have the bits that it has in company", torch.equal(mine[1:2], again)
        )
        mine.zero_()
        holds("the result must be a new tensor", torch.equal(given[0], logits[part]))
    agree("histories after process", [(list(a), list(b)) for a, b in told], before)


def check_fields(board: Scoreboard) -> None:
    """Each field alone, which must change something; other dtypes; what is refused."""
    rows = awkward_rows()
    x, told = rows[:1], [([1, 5, 5, 7], [8, 2, 2])]
    plain = process(x, [SamplingParams()], told, (2, 9))
    for name, values in FIELDS.items():
        base = SamplingParams(min_tokens=4) if name in ("stop_token_ids", "ignore_eos") else None
        changed = False
        for value in values:
            params = replace(base or SamplingParams(), **{name: value})
            wanted = their_process(x[0], params, told[0], (2, 9))[None]
            what = f"{name} = {value} alone"
            mine = attempt(what, process, x, [params], told, (2, 9))
            compare_scores(board, None, "each field alone", what, mine, wanted, atol=1e-5)
            changed |= not torch.equal(mine, plain)
        holds(f"{name} must change something", changed)
    for ids in ((1, 96), (97, 10**6)):  # the second has no score to hold back
        params = SamplingParams(min_tokens=9, stop_token_ids=ids)
        mine = attempt("stop ids past the vocabulary", process, x, [params], told)
        agree(
            "tokens that min_tokens holds back",
            set(range(97)) - set(kept(mine[0])),
            {*ids} & {*range(97)},
        )
    half = rows.to(BF16)
    for params in (
        SamplingParams(temperature=0.7, top_p=0.9),
        SamplingParams(repetition_penalty=1.3),
    ):
        many = [params] * len(rows), [([*range(60)], [9])] * len(rows)
        mine, wanted = process(half, *many), process(half.float(), *many)
        compare_scores(board, None, "bf16 scores", "bf16 scores", mine, wanted)
    for counts, name in (((2, 1, 1), "params"), ((1, 2, 1), "params"), ((1, 1, 2), "histories")):
        wrong = rows[: counts[0]], [SamplingParams()] * counts[1], told * counts[2]
        said = must_raise(ValueError, f"rows, params, histories {counts}", process, *wrong)
        holds(f"the refusal of {counts} must name {name}", name in said, said)
