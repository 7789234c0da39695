"""`generate_batch` held against `generate` of each prompt alone: Day 13."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from nanoserve.checks.common import agree, attempt, holds, must_raise
from nanoserve.checks.generating import watched
from nanoserve.checks.generating_cached import SAMPLED
from nanoserve.checks.generating_pieces import GREEDY, passes, same_logprobs
from nanoserve.checks.model import VOCAB, tokens
from nanoserve.generate import Generated, generate
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams
from nanoserve.together import begin, generate_batch, write_one

LENGTHS = (5, 1, 13, 2, 8, 3, 30, 4)
PROMPTS = [row[:n].tolist() for row, n in zip(tokens(8, 30), LENGTHS, strict=True)]
MIXED = (
    SamplingParams(seed=5, max_tokens=9, ignore_eos=True),
    replace(GREEDY, max_tokens=4, logprobs=2),
    *SAMPLED[1:],
    SamplingParams(temperature=1.5, min_p=0.02, seed=5, max_tokens=1),
    SamplingParams(seed=2**62, max_tokens=15, stop_token_ids=tuple(range(0, 60, 3))),
)


def alike(what: str, mine: list[Generated], wanted: list[Generated]) -> None:
    """AssertionError unless every text, its reason and its logprobs are as wanted."""
    agree(f"{what}: texts", len(mine), len(wanted))
    for i, (a, b) in enumerate(zip(mine, wanted, strict=True)):
        agree(f"{what}: ids of prompt {i}", a.token_ids, b.token_ids)
        agree(f"{what}: finish_reason of prompt {i}", a.finish_reason, b.finish_reason)
        same_logprobs(f"{what}, prompt {i}", a.logprobs, b.logprobs)


def check_texts(model: Llama, half: Llama) -> None:
    """On a made model with a context of 64, and a few on the same in bf16."""
    texts = attempt("generate_batch in bf16", generate_batch, half, PROMPTS[:3], GREEDY, 4)
    agree("tokens in bf16", [len(text.token_ids) for text in texts], [16] * 3)
    before, ends = model.config, (11, 17)
    model.config = replace(model.config, eos_token_id=ends)
    alone = [generate(model, p, own) for p, own in zip(PROMPTS, MIXED, strict=True)]
    check_companies(model, alone)
    check_shared(model)
    check_drop_outs(model, alone)
    check_joining(model, alone)
    check_refused(model)
    model.config = before


def check_companies(model: Llama, alone: list[Generated]) -> None:
    """Every number of companions from 0 to 7, params of each one's own, in any order, padded."""
    given = [list(p) for p in PROMPTS]
    for N in range(1, 9):
        at = [(3 * i + N) % 8 for i in range(N)]  # another order for every N
        prompts, params = [given[i] for i in at], [MIXED[i] for i in at]
        what = f"{N} prompts with params of their own"
        mine = attempt(what, generate_batch, model, prompts, params, multiple=1 + N % 4)
        alike(what, mine, [alone[i] for i in at])
    agree("the caller's prompts after generate_batch", given, PROMPTS)
    agree("texts of no prompt", attempt("no prompt", generate_batch, model, [], []), [])
    holds("ids must be a list of int", {type(i) for a in mine for i in a.token_ids} == {int})


def check_shared(model: Llama) -> None:
    """One params for all: a seed means the same for each; without one, the texts differ."""
    for params in (SAMPLED[2], replace(GREEDY, max_tokens=6), MIXED[-1]):
        mine = attempt("one params for all", generate_batch, model, PROMPTS[:2], params)
        alike("one params for all", mine, [generate(model, p, params) for p in PROMPTS[:2]])
    free = generate(model, PROMPTS[3], replace(GREEDY, max_tokens=6)).token_ids
    at = free.index(free[-1])  # where the last token allowed is a stop id too
    both = replace(GREEDY, max_tokens=at + 1, stop_token_ids=(free[at],))
    (text,) = generate_batch(model, PROMPTS[3:4], both)
    agree("reason where a stop id fills max_tokens", text.finish_reason, "stop")
    twice = generate_batch(model, [PROMPTS[2]] * 3, replace(SAMPLED[1], seed=8))
    agree("different texts of one prompt and seed", len({(*t.token_ids,) for t in twice}), 1)
    hot = SamplingParams(temperature=9.0, max_tokens=12, ignore_eos=True)
    texts = generate_batch(model, [PROMPTS[2]] * 3, hot)
    agree("different texts of three without a seed", len({(*t.token_ids,) for t in texts}), 3)


@contextmanager
def read_in_passes(model: Llama) -> Iterator[list[int]]:
    """How many tokens each pass of the model reads meanwhile."""
    sizes = []
    with passes(model) as seen:
        yield sizes
    sizes += [T for T, *_ in seen]


def check_drop_outs(model: Llama, alone: list[Generated]) -> None:
    """The prompts are read once, in one pass; then a pass reads a token of each unfinished text."""
    with read_in_passes(model) as sizes:
        generate_batch(model, PROMPTS, MIXED)
    lengths = [len(text.token_ids) for text in alone]
    wanted = [sum(map(len, PROMPTS))]
    wanted += [sum(n > step for n in lengths) for step in range(1, max(lengths))]
    agree("tokens that each pass reads", sizes, wanted)
    with read_in_passes(model) as sizes:
        generate_batch(model, PROMPTS, MIXED, multiple=8)
    wanted = [n + -n % 8 for n in wanted]
    agree("tokens that each pass reads, in multiples of 8", sizes, wanted)
    full = SamplingParams(temperature=0, max_tokens=None, ignore_eos=True)
    (text,) = attempt("max_tokens None", generate_batch, model, [[5] * 60], full)
    agree("tokens up to the end of the context", len(text.token_ids), 4)


def check_joining(model: Llama, alone: list[Generated]) -> None:
    """Texts that begin while others go on, first in the row or second, are the texts alone."""
    drafts, running = [], []
    for prompt, params in zip(PROMPTS[:5], MIXED[:5], strict=True):
        drafts += attempt("begin", begin, model, [tuple(prompt)], [params])
        holds("begin must read nothing", drafts[-1].cache.length == 0)
        agree("places in its cache", drafts[-1].cache.max_len, len(prompt) + params.max_tokens - 1)
        running = [d for d in running if not d.reason]
        running.insert(len(drafts) % 2, drafts[-1])
        with watched(model) as given:
            attempt("write_one", write_one, model, running, 3)
        rows = [row.shape[0] for row in given]
        agree("rows of the head, in multiples of 3", rows, [len(running) + -len(running) % 3])
    running[-1].cache.truncate(0)  # as if its memory had been wanted: it is read again
    running[0].cache.truncate(1)
    while running := [d for d in running if not d.reason]:
        write_one(model, running)
    texts = [Generated(d.output, d.reason, d.logprobs or None) for d in drafts]
    alike("texts that began one after another", texts, alone[:5])


def check_refused(model: Llama) -> None:
    """What is refused, before any pass; the message has the number of the prompt."""
    good, params = [1, 2], replace(GREEDY, max_tokens=4)
    for what, prompts, own, words in (
        ("an empty prompt", [good, []], params, ["prompt 1", "empty"]),
        ("an id past the vocabulary", [good, good, [VOCAB]], params, ["prompt 2", str(VOCAB)]),
        ("a prompt past the context", [[1] * 62], params, ["prompt 0", "66"]),
        ("ids that are not in a list", [1, 2], params, ["prompt 0", "1"]),
        ("a text", ["Hello"], params, ["prompt 0", "Hello"]),
        ("a params too few", [good] * 3, [params] * 2, ["3", "2"]),
        ("a params too many", [good], [params] * 2, ["1", "2"]),
        ("stop texts", [good], replace(params, stop="x"), ["prompt 0", "stop"]),
    ):
        with read_in_passes(model) as sizes:
            said = must_raise(ValueError, what, generate_batch, model, prompts, own)
        agree(f"{what}: untold in {said!r}", [word for word in words if word not in said], [])
        agree(f"{what}: tokens read", sizes, [])
