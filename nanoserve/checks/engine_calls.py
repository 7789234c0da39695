"""What Engine promises to whoever calls it: refusals, outputs, ends, aborts, audits. Day 16."""

from dataclasses import replace

from nanoserve.checks.common import agree, attempt, holds, must_raise, tells
from nanoserve.checks.generating_pieces import GREEDY, passes
from nanoserve.checks.model import VOCAB, tokens
from nanoserve.checks.serving import hear, run
from nanoserve.engine.engine import Engine
from nanoserve.generate import generate
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams

BAD_SETTINGS = (
    ("block_size", 0),
    ("num_blocks", 0),
    ("num_blocks", -1),
    ("max_num_seqs", 0),
    ("max_num_seqs", 2.0),
    ("max_num_batched_tokens", 0),
    ("max_num_batched_tokens", True),
    ("enable_prefix_caching", None),
    ("enable_prefix_caching", 1),
)


def check_engine_calls(model: Llama) -> None:
    """On a made model with a context of 64: everything that the docstrings promise."""
    for name, value in BAD_SETTINGS:
        said = must_raise(ValueError, f"{name} {value}", Engine, model, **{name: value})
        holds(f"the refusal of {name} {value} must name it", name in said, said)
    check_refusals(model)
    check_outputs(model)
    check_ends(model)


def check_refusals(model: Llama) -> None:
    """Refused at once, with what to change; nothing is left of it, and the model is not run."""
    engine = Engine(model, num_blocks=3, block_size=8)  # 24 tokens, in a context of 64
    engine.add_request("taken", [1], GREEDY)
    with passes(model) as seen:
        for what, name, prompt, params, words in (
            ("an id in use", "taken", [1], {}, ["taken"]),
            ("an empty prompt", "a", [], {}, ["empty"]),
            ("an id past the vocabulary", "a", [1, VOCAB], {}, [str(VOCAB), "vocabulary"]),
            ("a negative id", "a", [-1], {}, ["-1"]),
            ("an id that is no int", "a", [0.5], {}, ["0.5"]),
            ("past the context", "a", [1] * 60, {"max_tokens": 5}, ["65", "64"]),
            ("past the pool", "a", [1] * 20, {"max_tokens": 6}, ["num_blocks", "4", "3"]),
            ("a prompt past the pool", "a", [1] * 30, {"max_tokens": None}, ["num_blocks"]),
            ("stop texts", "a", [1], {"stop": ("x",)}, ["tokenizer", "stop_token_ids"]),
        ):
            asked = replace(GREEDY, **params)
            said = must_raise(ValueError, what, engine.add_request, name, prompt, asked)
            tells(what, said, words)
    agree("passes of the model for what is refused", seen, [])
    engine.add_request("a", [1] * 20, replace(GREEDY, max_tokens=5))  # to the last place
    agree("requests told of in the end", sorted(run(engine)), ["a", "taken"])


def check_outputs(model: Llama) -> None:
    """A prompt in chunks tells nothing before its last one; outputs are the caller's own."""
    prompt, other = tokens(2, 20).tolist()
    engine = Engine(model, max_num_batched_tokens=8, num_blocks=20)
    before, told = list(prompt), {}
    engine.add_request("long", prompt, replace(GREEDY, max_tokens=4))
    engine.add_request("next", other, SamplingParams(temperature=0, ignore_eos=True))
    with passes(model) as seen:
        first = [hear("in chunks", engine, told) for _ in range(3)]
    agree("outputs of two chunks and the last", [len(outputs) for outputs in first], [0, 0, 1])
    agree("passes: tokens, positions", seen, [(8, 0, 7), (8, 8, 15), (8, 16, 3)])
    agree("requests that it tells of", first[2][0].request_id, "long")
    told["long"] = replace(first[2][0], token_ids=list(first[2][0].token_ids))
    first[2][0].token_ids.clear()
    first[2][0].prompt_token_ids.clear()
    run(engine, told)
    agree("the caller's prompt", prompt, before)
    agree(
        "ids of a prompt in chunks",
        told["long"].token_ids,
        generate(model, prompt, replace(GREEDY, max_tokens=4)).token_ids,
    )
    agree("max_tokens unless said otherwise", len(told["next"].token_ids), 16)
    agree(
        "text, logprobs and cached tokens",
        (told["next"].text, told["next"].logprobs, told["next"].num_cached_tokens),
        ("", None, 0),
    )
    hot = SamplingParams(temperature=9.0, max_tokens=12, ignore_eos=True)
    for name in "abc":
        engine.add_request(name, prompt, hot)
    texts = {tuple(output.token_ids) for output in run(engine).values()}
    agree("different texts of three without a seed", len(texts), 3)


def check_ends(model: Llama) -> None:
    """Ends of the config and of the params, also where they stand in the prompt; the context."""
    prompt = tokens(1, 5)[0].tolist()
    free = generate(model, prompt, replace(GREEDY, max_tokens=9)).token_ids
    config, eos = model.config, free[3]
    end = free.index(eos) + 1
    unused = next(i for i in range(VOCAB) if i not in free)
    model.config = replace(config, eos_token_id=(unused, eos))
    engine = Engine(model, num_blocks=40)
    at_end = generate(model, [eos, eos], replace(GREEDY, max_tokens=3)).token_ids
    for what, ids, params, wanted in (
        ("an end of the config", prompt, {"ignore_eos": False}, (free[:end], "stop")),
        ("an end that is ignored", prompt, {}, (free, "length")),
        ("an end of the params", prompt, {"stop_token_ids": (eos,)}, (free[:end], "stop")),
        ("an end in the prompt", [eos, eos], {"max_tokens": 3}, (at_end, "length")),
        ("one token", prompt, {"max_tokens": 1}, (free[:1], "length")),
    ):
        engine.add_request("a", ids, replace(GREEDY, **{"max_tokens": 9} | params))
        mine = run(engine)["a"]
        agree(what, (mine.token_ids, mine.finish_reason), wanted)
    held = replace(GREEDY, max_tokens=9, ignore_eos=False, min_tokens=end + 1)
    engine.add_request("a", prompt, held)
    holds("no end before min_tokens", eos not in run(engine)["a"].token_ids[: end + 1])
    engine.add_request("a", [1] * 60, replace(GREEDY, max_tokens=None))
    agree("tokens that fill the context", len(run(engine)["a"].token_ids), 4)
    small = Engine(model, num_blocks=3, block_size=4)
    unsaid = replace(GREEDY, max_tokens=None)
    attempt("a small pool, max_tokens None", small.add_request, "a", [1] * 10, unsaid)
    agree("tokens that fill the pool", len(run(small)["a"].token_ids), 3)
    model.config = config
