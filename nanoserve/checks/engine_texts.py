"""LLM and the engine's texts, on a made checkpoint with a tokenizer: Day 16."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from nanoserve.checks import text_made
from nanoserve.checks.common import agree, attempt, holds, must_raise
from nanoserve.checks.generating_pieces import GREEDY
from nanoserve.checks.model import LAYERS, SIZES, VARIANTS
from nanoserve.checks.serving import hear
from nanoserve.engine.engine import Engine
from nanoserve.engine.llm import LLM
from nanoserve.generate import generate
from nanoserve.model import Llama
from nanoserve.reference import transformers
from nanoserve.sampling import SamplingParams

PROMPTS = ("The server reads a text", "Où est la gare?", "x", "def add(a, b):", "世界 and tokens")
NEW = 24


@contextmanager
def checkpoint(layers: int = LAYERS) -> Iterator[Path]:
    """A folder with a made model, a byte-level tokenizer with a template, and two ends."""
    with tempfile.TemporaryDirectory() as folder:
        path = text_made.save(Path(folder) / "made", "byte level")
        theirs = transformers.AutoTokenizer.from_pretrained(path)
        torch.manual_seed(3)
        sizes = SIZES | VARIANTS[1] | {"vocab_size": len(theirs), "max_position_embeddings": 128}
        sizes["num_hidden_layers"] = layers
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
        for p in model.parameters():
            nn.init.normal_(p.data, 1.0 if p.dim() == 1 else 0.0, p.shape[-1] ** -0.5)
        model.save_pretrained(path)
        ends = [theirs.eos_token_id, theirs.convert_tokens_to_ids("e")]
        text = json.dumps({"eos_token_id": ends})
        (path / "generation_config.json").write_text(text, "utf-8")
        yield path


def check_texts() -> None:
    """Texts and chats in order, stop strings at every place, pieces, and what is refused."""
    with checkpoint() as path:
        llm = attempt("LLM", LLM, path, num_blocks=64)
        theirs = transformers.AutoTokenizer.from_pretrained(path)
        check_generate(llm, theirs)
        check_chat(llm, theirs)
        check_stops(llm)
        check_refused(llm)


def check_generate(llm: LLM, theirs) -> None:
    """Texts, ids and both, alone and together, with params for all or for each; a second call."""
    model, ends = Llama.from_pretrained, llm.engine.eos_ids
    agree("ends of the checkpoint", len(ends), 2)
    model = llm.engine.model
    params = [replace(GREEDY, max_tokens=NEW - 5 * i, ignore_eos=i != 1) for i in range(3)]
    params += [SamplingParams(seed=i, max_tokens=NEW) for i in range(2)]
    ids = [theirs.encode(text) for text in PROMPTS]
    wanted = [
        generate(
            model, one, replace(p, ignore_eos=True, stop_token_ids=() if p.ignore_eos else ends)
        )
        for one, p in zip(ids, params, strict=True)
    ]
    for what, prompts in (
        ("texts", PROMPTS),
        ("ids", ids),
        ("both", [*PROMPTS[:2], *ids[2:]]),
    ):
        outputs = attempt(f"generate from {what}", llm.generate, prompts, params)
        for i, (output, right) in enumerate(zip(outputs, wanted, strict=True)):
            name = f"prompt {i} of {what}"
            agree(f"{name}: ids of the prompt", output.prompt_token_ids, ids[i])
            agree(f"{name}: ids", output.token_ids, right.token_ids)
            agree(f"{name}: reason", output.finish_reason, right.finish_reason)
            told = output.token_ids[: -1 if output.finish_reason == "stop" else None]
            agree(f"{name}: text", output.text, theirs.decode(told, skip_special_tokens=True))
    for prompt in (PROMPTS[0], ids[0], [PROMPTS[0]]):
        outputs = attempt("generate from one prompt", llm.generate, prompt, params[0])
        agree("ids from one prompt", [o.token_ids for o in outputs], [wanted[0].token_ids])
    agree("outputs for no prompts", llm.generate([]), [])
    agree("tokens unless said otherwise", len(llm.generate("x", None)[0].token_ids) <= 16, True)


def check_chat(llm: LLM, theirs) -> None:
    """Conversations through the checkpoint's template, one or several."""
    system = {"role": "system", "content": "be brief"}
    talks = [[system, {"role": "user", "content": text}] for text in PROMPTS[:2]]
    params = replace(GREEDY, max_tokens=4)
    wanted = [
        theirs.apply_chat_template(t, add_generation_prompt=True, return_dict=False) for t in talks
    ]
    for what, given, right in (
        ("two conversations", talks, wanted),
        ("one", talks[0], wanted[:1]),
    ):
        outputs = attempt(f"chat with {what}", llm.chat, given, params)
        agree(f"{what}: ids of the prompts", [o.prompt_token_ids for o in outputs], right)
        agree(
            f"{what}: ids",
            [o.token_ids for o in outputs],
            [generate(llm.engine.model, ids, params).token_ids for ids in right],
        )
    asked, plain = [], llm.engine.add_request

    def add_request(name, ids, params):
        asked.append(set(params.stop_token_ids))
        plain(name, ids, params)

    llm.engine.add_request = add_request
    for ignored in (False, True):
        llm.chat(talks[0], replace(params, ignore_eos=ignored, stop_token_ids=(3,)))
    del llm.engine.add_request
    ends = set(llm.tokenizer.turn_ends())
    holds("the template must end its turns with a token", bool(ends))
    agree("ids that end a chat, and one that ignores them", asked, [{3, *ends}, {3}])


def check_stops(llm: LLM) -> None:
    """A stop string at every place of a text: it ends there, as soon as it is complete."""
    free = llm.generate(PROMPTS[0], replace(GREEDY, max_tokens=NEW))[0]
    for start in range(0, len(free.text) - 2, 4):
        stop = free.text[start : start + 3]
        at = free.text.index(stop)
        n = next(n for n in range(1, NEW + 1) if stop in llm.tokenizer.decode(free.token_ids[:n]))
        params = replace(GREEDY, max_tokens=NEW, stop=(stop, "never there"))
        pieces = spoken(llm, free.prompt_token_ids, params)
        what, last = f"stop {stop!r}", pieces[-1]
        agree(f"{what}: text", last.text, free.text[:at])
        agree(f"{what}: reason", last.finish_reason, "stop")
        agree(f"{what}: ids", last.token_ids, free.token_ids[:n])
        agree(f"{what}: free blocks", llm.engine.num_free_blocks, 64)
    for place in (2, 8):  # a stop id is the last of the ids, and no part of the text
        params = replace(GREEDY, max_tokens=NEW, stop_token_ids=(free.token_ids[place],))
        ids = free.token_ids[: 1 + free.token_ids.index(free.token_ids[place])]
        last = spoken(llm, free.prompt_token_ids, params)[-1]
        agree(f"ids with a stop id at {place}", last.token_ids, ids)
        mine, wanted = (last.text, last.finish_reason), (llm.tokenizer.decode(ids[:-1]), "stop")
        agree(f"text with a stop id at {place}, and reason", mine, wanted)
    # A stop that begins to form is held back, and sent at the end.
    params = replace(GREEDY, max_tokens=NEW, stop=(free.text[-5:] + "?!",))
    last = spoken(llm, free.prompt_token_ids, params)[-1]
    agree("text that ends in half of a stop", last.text, free.text)
    # The last token completes it: an end all the same.
    params = replace(GREEDY, max_tokens=n, stop=(stop,))
    agree(
        "reason of a stop at max_tokens",
        spoken(llm, free.prompt_token_ids, params)[-1].finish_reason,
        "stop",
    )


def spoken(llm: LLM, prompt: list[int], params: SamplingParams) -> list:
    """The outputs of one request, step by step: each goes on from the one before."""
    llm.engine.add_request("spoken", prompt, params)
    pieces = []
    while llm.engine.has_unfinished():
        holds("a request must end at max_tokens", len(pieces) < params.max_tokens)
        pieces += hear("spoken", llm.engine, {p.request_id: p for p in pieces[-1:]})
        texts = [piece.text for piece in pieces[-2:]]
        holds("a text must go on from what was sent", texts[-1].startswith(texts[0]), f"{texts}")
        attempt("audit", llm.engine.audit)
    return pieces


def check_refused(llm: LLM) -> None:
    """A refusal names the prompt, and nothing of a call that failed goes on."""
    two = [GREEDY, GREEDY]
    for what, prompts, params, word in (
        ("the second prompt too long", ["x", [1] * 200, "y"], GREEDY, "prompt 1"),
        ("an empty prompt", ["x", []], GREEDY, "prompt 1"),
        ("two params for three prompts", ["x", "y", "z"], two, "2 params"),
        ("half of a character as a stop", ["x"], replace(GREEDY, stop=("\ud800",)), "prompt 0"),
    ):
        said = must_raise(ValueError, what, llm.generate, prompts, params)
        holds(f"{what}: the refusal must say {word!r}", word in said, said)
        agree(f"{what}: requests left", llm.engine.has_unfinished(), False)
        attempt(f"{what}: audit", llm.engine.audit)
    engine: Engine = llm.engine
    plain = engine.runner.logits

    def fail(plan):
        raise KeyboardInterrupt

    engine.runner.logits = fail
    try:
        llm.generate(["x", "y"], GREEDY)
    except KeyboardInterrupt:
        agree("requests left after Ctrl-C", engine.has_unfinished(), False)
    engine.runner.logits = plain
    agree("free blocks after Ctrl-C", engine.num_free_blocks, 64)
    agree("outputs of the next call", len(llm.generate(["x", "y"], GREEDY)), 2)
