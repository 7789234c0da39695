"""The engine on a GPU with whole workloads, and transformers beside it: for bench_gpu.py."""

import gc
import statistics
import time

import torch
from gpu_clock import DEVICE, ON_A_GPU, wait

from nanoserve.bench.clock import time_engine
from nanoserve.bench.workloads import Turn, workload
from nanoserve.checkpoints.twin import CONFIG
from nanoserve.engine.gpu import GPUEngine
from nanoserve.loader import key_map
from nanoserve.model import Llama

REQUESTS, LONGEST = 256, 1024  # nano-vllm's workload, its very ids
PROMPT, NEW = 32, 512
TOGETHER = (1, 8, 32, 128)
READ = 4096  # tokens of the prompt whose first token is waited for
THEIRS_NEW = 64  # tokens that transformers writes in the place of NEW: it takes 50 ms for each


def quiet(new: int) -> None:
    """No progress bar."""


def numbers(run) -> dict:
    """What a run tells."""
    found = {"tok/s": round(run.rate, 1), "seconds": round(run.seconds, 4), "new": run.new_tokens}
    found |= {"prompt": run.prompt_tokens, "cached": run.cached_tokens}
    if run.first:
        found["ttft ms"] = round(1e3 * statistics.median(run.first), 3)
    return found


def engine(model: Llama, found: dict) -> None:
    """nano-vllm's workload, several at once, a chat, and a long prompt's first token."""
    if not ON_A_GPU:
        return
    V = model.config.vocab_size
    begin = time.perf_counter()
    ours = GPUEngine(model, max_model_len=8192, enable_prefix_caching=False)
    wait()
    found["seconds to start"] = round(time.perf_counter() - begin, 2)
    free, total = torch.cuda.mem_get_info()
    found["GiB when started"] = {
        "allocated": round(torch.cuda.memory_allocated() / 2**30, 2),
        "reserved": round(torch.cuda.memory_reserved() / 2**30, 2),
        "free": round(free / 2**30, 2),
        "total": round(total / 2**30, 2),
    }
    asked = workload("nano-vllm", REQUESTS, 0, LONGEST, V)
    time_engine(ours, workload("nano-vllm", 8, 1, LONGEST, V), 0.6, quiet, False)  # warm
    found["nano-vllm"] = [numbers(time_engine(ours, asked, 0.6, quiet, False)) for _ in "abc"]
    first = [(Turn(c[0].ids, 1),) for c in asked]
    found["prompts of nano-vllm"] = numbers(time_engine(ours, first, 0.6, quiet, False))
    made = torch.Generator().manual_seed(0)

    def prompt(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, V, (n,), generator=made).tolist())

    found["together"] = {}
    for count in TOGETHER:
        texts = [(Turn(prompt(PROMPT), NEW),) for _ in range(count)]
        runs = [time_engine(ours, texts, 0.0, quiet) for _ in "ab"]
        found["together"][count] = numbers(runs[1])
        found["together"][count]["same ids twice"] = runs[0].answers == runs[1].answers
    texts = [[(Turn(prompt(READ), 1),)] for _ in range(5)]
    found["ttft"] = [numbers(time_engine(ours, one, 0.0, quiet))["ttft ms"] for one in texts]
    graphs = ours.runner.graphs
    kept, graphs.graphs = graphs.graphs, {}
    found["nano-vllm, no graphs"] = numbers(time_engine(ours, asked, 0.6, quiet, False))
    graphs.graphs = kept
    ours.audit()
    del ours, graphs, kept
    give_back()
    found["chat"] = {}
    for caching in (True, False):
        ours = GPUEngine(model, max_model_len=8192, enable_prefix_caching=caching)
        talk = workload("chat", 256, 0, 1024, V)
        for seed in (1, 2):  # other conversations: nothing of them is found again
            time_engine(ours, workload("chat", 256, seed, 1024, V), 0.0, quiet)
        name = "prefix caching" if caching else "none"
        found["chat"][name] = numbers(time_engine(ours, talk, 0.0, quiet))
        del ours
        give_back()
    found["peak GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)


def give_back() -> None:
    """The memory of engines that are gone."""
    gc.collect()
    torch.cuda.empty_cache()


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


def transformers(model: Llama, found: dict) -> None:
    """Its generate: as it comes, and with a static cache and torch.compile."""
    theirs = their_model(model)
    ids = torch.randint(0, model.config.vocab_size, (128, PROMPT), device=DEVICE)
    check_scores(model, theirs, ids[:1], found)

    def wrote(count: int, new: int, **settings) -> float:
        given = ids[:count]
        wait()
        begin = time.perf_counter()
        out = theirs.generate(
            given, attention_mask=torch.ones_like(given), do_sample=False, min_new_tokens=new,
            max_new_tokens=new, **settings,
        )  # fmt: skip
        wait()
        assert out.shape[1] == PROMPT + new
        return time.perf_counter() - begin

    new = THEIRS_NEW if ON_A_GPU else 3
    wrote(1, 4)
    found["as it comes"] = {}
    for count in TOGETHER if ON_A_GPU else (1, 2):
        seconds = wrote(count, new)
        found["as it comes"][count] = {
            "ms a step": round(1e3 * seconds / new, 3),
            "tok/s": round(count * new / seconds, 1),
        }
    long = torch.randint(0, model.config.vocab_size, (1, READ if ON_A_GPU else 9), device=DEVICE)
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        theirs(long, logits_to_keep=1)
        wait()
        times.append(round(1e3 * (time.perf_counter() - begin), 3))
    found["ttft"] = times[1:]
    if ON_A_GPU:
        new = NEW
        for _ in range(2):  # compiles, for a cache of this length
            wrote(1, new, cache_implementation="static")
        seconds = min(wrote(1, new, cache_implementation="static") for _ in range(3))
        found["static, compiled"] = {"ms a step": round(1e3 * seconds / new, 3)}


def check_scores(model: Llama, theirs, ids: torch.Tensor, found: dict) -> None:
    """Whether it is the same model: scores of a prompt, relative distance."""
    ours, hers = model.logits(model(ids))[0].double(), theirs(ids).logits[0].double()
    off = (ours - hers).norm(dim=-1) / hers.norm(dim=-1)
    found["scores apart"] = off.median().item()
