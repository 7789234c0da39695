"""transformers' generate on a GPU, on the very same weights: for bench_gpu.py.

As it comes, and with a static cache, for which it compiles by itself: make bench-gpu runs it. All
texts of a workload go in one padded batch, by the book's own clock for that. Its continuous
batching is gpu_continuous.py's. In a process of its own, when ours has given the card back.
"""

import importlib.util
import time
from pathlib import Path

import torch
from bench_gpu import added, lines_of, made_model, softly
from gpu_clock import DEVICE, ON_A_GPU, wait
from gpu_engine import NEW, PROMPT, READ, TOGETHER, give_back, numbers, quiet, workloads

from nanoserve.bench.huggingface import time_theirs
from nanoserve.bench.workloads import Conversation, Turn
from nanoserve.checkpoints.twin import CONFIG
from nanoserve.loader import key_map
from nanoserve.model import Llama

WARM = 16  # tokens of a warm-up that need not be as long as what is timed
FEW = 64  # tokens in the place of NEW as it comes: it takes 60 ms for each


def their_model(model: Llama):
    """transformers' own, on the very same weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    c = model.config
    told = {name: CONFIG[name] for name in ("rope_theta", "rope_scaling", "rms_norm_eps")}
    told |= {"hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size}
    told |= {"num_hidden_layers": c.num_hidden_layers, "head_dim": c.head_dim}
    told |= {"num_attention_heads": c.num_attention_heads, "vocab_size": c.vocab_size}
    told |= {"num_key_value_heads": c.num_key_value_heads, "tie_word_embeddings": True}
    told |= {"max_position_embeddings": c.max_position_embeddings}
    with torch.device("meta"):
        theirs = LlamaForCausalLM(LlamaConfig(**told, pad_token_id=0, eos_token_id=None))
    names = key_map(c)
    held = {names[name]: weight for name, weight in model.state_dict().items()}
    held["lm_head.weight"] = held["model.embed_tokens.weight"]
    theirs.load_state_dict(held, assign=True)
    theirs.model.rotary_emb = type(theirs.model.rotary_emb)(theirs.config).to(DEVICE)
    return theirs.eval()


def check_scores(model: Llama, theirs, ids: torch.Tensor, found: dict) -> None:
    """Whether it is the same model: scores of a prompt, relative distance."""
    ours, hers = model.logits(model(ids))[0].double(), theirs(ids).logits[0].double()
    off = (ours - hers).norm(dim=-1) / hers.norm(dim=-1)
    found["scores apart"] = off.median().item()


def raced(theirs, asked: list[Conversation], warm: list[Conversation]) -> dict:
    """All of `asked` at once in padded batches, after `warm`; and what that took of the card."""
    begin = time.perf_counter()
    time_theirs(theirs, warm, len(warm), quiet)
    warmed = time.perf_counter() - begin
    give_back()
    if ON_A_GPU:
        torch.cuda.reset_peak_memory_stats()
    run = time_theirs(theirs, asked, len(asked), quiet)
    found = {"seconds of the warm-up": round(warmed, 2)} | numbers(run)
    if ON_A_GPU:
        found["peak GiB"] = round(torch.cuda.max_memory_reserved() / 2**30, 2)
    return found


def alike(count: int, new: int, V: int) -> list[Conversation]:
    """`count` prompts of PROMPT ids, others each time."""
    return [(Turn(tuple(ids), new),) for ids in torch.randint(0, V, (count, PROMPT)).tolist()]


def longest(asked: list[Conversation]) -> list[Conversation]:
    """As many texts, of one turn each, as long as the longest of these ever gets, and two over."""
    total = max(sum(len(turn.ids) + turn.new for turn in turns) for turns in asked)
    return [(Turn((1,) * (total - WARM), WARM + 2),) for _ in asked]


def races(theirs, found: dict, save, new: int, compiles: bool) -> None:
    """One text, several at once, nano-vllm's workload and the chat."""
    V = theirs.config.vocab_size
    for count in TOGETHER if ON_A_GPU else (1, 2):
        torch.compiler.reset()  # or it compiles for any number of texts, which runs slower
        warm = alike(count, new if compiles else WARM, V)
        found[count] = raced(theirs, alike(count, new, V), warm)
        found[count]["ms a step"] = round(1e3 * found[count]["seconds"] / new, 3)
        save()
    for name, asked in (workloads(V) if ON_A_GPU else {}).items():
        torch.compiler.reset()
        # A static cache is as long as the longest that was asked for: so it compiles but once.
        found[name] = softly(lambda a=asked: raced(theirs, a, longest(a)))
        save()


def measure(model: Llama, found: dict, save) -> None:
    """As it comes, a long prompt's first token, and compiled."""
    whole = Path(importlib.util.find_spec("transformers").origin).parent
    found["lines of Python"] = {"all": lines_of(whole), "models": lines_of(whole / "models")}
    begin = time.perf_counter()
    theirs, V = their_model(model), model.config.vocab_size
    found["seconds to make it"] = round(time.perf_counter() - begin, 2)
    check_scores(model, theirs, torch.randint(0, V, (1, PROMPT), device=DEVICE), found)
    long = torch.randint(0, V, (1, READ if ON_A_GPU else 9), device=DEVICE)
    times = []
    for _ in range(6):
        begin = time.perf_counter()
        theirs(long, logits_to_keep=1)
        wait()
        times.append(round(1e3 * (time.perf_counter() - begin), 3))
    found["ttft"] = times[1:]
    found["as it comes"], found["static, compiled"] = {}, {}
    races(theirs, found["as it comes"], save, FEW if ON_A_GPU else 3, False)
    theirs.generation_config.cache_implementation = "static"  # and then it compiles by itself
    races(theirs, found["static, compiled"], save, NEW if ON_A_GPU else 3, True)


def main() -> None:
    """Adds its numbers to those that are there."""
    with torch.no_grad(), added("transformers") as (found, save):
        torch.manual_seed(0)
        measure(made_model(), found, save)


if __name__ == "__main__":
    main()
