"""`nanoserve bench`: how fast the engine is here, HuggingFace beside it, or a server at --url."""

import argparse
import json
import os
import platform
import statistics
from datetime import datetime, timezone
from pathlib import Path

from nanoserve import __version__
from nanoserve.checkpoints import checkpoint_path
from nanoserve.checkpoints.catalog import DEFAULT
from nanoserve.commands import bench_url
from nanoserve.commands.common import add_engine, engine_settings, say

BAR_OF_HALVES = 5e-2  # the same in bf16 and fp16, which keep 8 and 11 bits
LENGTHS = """\
example: nanoserve bench --requests 8 --longest 64 --hf

That takes half a minute on a laptop's CPU. What is measured if nothing is given, 2,200 new tokens,
takes a minute or two, and several times as long with --hf. nano-vllm's 256 requests want 134,000
new tokens: more than an hour on a CPU, and seconds on a GPU.
"""
BAR = 1e-4  # of the largest logit: margins that other orders of adding can turn over


def add(commands) -> None:
    """The arguments of `nanoserve bench`."""
    about = "measure the engine on this machine, or a server at --url"
    kind = argparse.RawDescriptionHelpFormatter  # keeps the lines of LENGTHS
    given = {"help": about, "description": about, "epilog": LENGTHS, "formatter_class": kind}
    parser = commands.add_parser("bench", **given)
    parser.set_defaults(run=run)
    parser.add_argument("--checkpoint", help=f"a name or a folder; default {DEFAULT}")
    about = (
        "nano-vllm: 256 requests of 100 to 1,024 tokens; chat: turns that share what came before"
    )
    about += "; default chat, and nano-vllm with --url"
    parser.add_argument("--workload", choices=("nano-vllm", "chat"), help=about)
    about = "so many requests, or messages of the chat; default 64"
    parser.add_argument("--requests", type=int, default=64, help=about)
    about = "tokens of the longest prompt and answer; default 1024, as nano-vllm has it"
    parser.add_argument("--longest", type=int, default=1024, help=about)
    parser.add_argument("--seed", type=int, default=0, help="of the workload; default 0")
    about = "default 0.6, as nano-vllm has it; 0 with --hf"
    parser.add_argument("--temperature", type=float, help=about)
    about = "HuggingFace's generate beside it, one by one and in padded batches; texts are compared"
    parser.add_argument("--hf", action="store_true", help=about)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to it")
    add_engine(parser)
    bench_url.add(parser)


def run(args: argparse.Namespace) -> None:
    """Print a line for each contestant. ValueError where texts differ, CheckpointError too."""
    from nanoserve.bench.clock import time_engine
    from nanoserve.bench.workloads import workload
    from nanoserve.engine.llm import engine_on

    if args.json:
        check_writable(args.json)
    if args.url:
        return bench_url.run(args)
    bench_url.refuse(args)
    path, settings = checkpoint_path(args.checkpoint), engine_settings(args)
    if args.hf and args.temperature:
        raise ValueError("--hf compares texts, so both are greedy: leave --temperature out, or 0")
    temperature = args.temperature
    if temperature is None:
        temperature = 0.0 if args.hf else 0.6
    args.workload = args.workload or "chat"
    engine = engine_on(args.device)(path, **settings)
    vocabulary = engine.model.config.vocab_size
    asked = workload(args.workload, args.requests, args.seed, args.longest, vocabulary)
    check_lengths(engine, asked)
    other = workload(args.workload, 2, args.seed + 1, args.longest, vocabulary)
    time_engine(engine, other, temperature, lambda new: None)  # warm, by other prompts
    waits = args.workload == "chat"  # nano-vllm's is of throughput alone
    with progress(asked, "nanoserve") as bar:
        ours = time_engine(engine, asked, temperature, bar.update, waits)
    engine.audit()
    runs = {"nanoserve": ours}
    print(line("nanoserve", ours), flush=True)
    apart = {}
    if args.hf:
        weight, rows = engine.model.embed.weight, engine.scheduler.max_num_seqs
        apart = beside(path, asked, other, runs, rows, weight.device, weight.dtype)
    if args.json:
        found = {name: numbers(run) for name, run in runs.items()}
        told = {"checkpoint": path.name, "workload": args.workload, "requests": args.requests}
        told |= {"longest": args.longest, "seed": args.seed, "temperature": temperature}
        told |= {"engine": settings, "machine": machine(), "runs": found, "apart": apart}
        args.json.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    bar = BAR if engine.model.embed.weight.itemsize == 4 else BAR_OF_HALVES
    if wrong := [what for what, margin in apart.items() if margin > bar]:
        raise ValueError(f"the texts of HuggingFace are others: {'; '.join(wrong)}")


def check_writable(file: Path) -> None:
    """ValueError where it is not: told before an hour of work. It stays as it is, or missing."""
    new = not file.exists()
    try:
        file.open("a").close()  # a folder could be touched
        if new:
            file.unlink()
    except OSError as error:
        raise ValueError(f"--json {file} cannot be written ({error.strerror})") from None


def check_lengths(engine, asked) -> None:
    """ValueError where a conversation grows longer than the engine can hold."""
    longest = max(sum(len(t.ids) + t.new for t in turns) for turns in asked)
    if longest > engine.max_model_len:
        raise ValueError(
            f"the longest conversation has {longest} tokens, and context and pool hold "
            f"{engine.max_model_len}: take a smaller --longest, or a larger --num-blocks"
        )


def beside(path: Path, asked, other, runs: dict, rows: int, device, dtype) -> dict[str, float]:
    """Add HuggingFace's runs, and print them. Where texts part, and by what margin."""
    from nanoserve.bench.huggingface import disagreements, their_model, time_theirs
    from nanoserve.bench.workloads import Turn

    model, apart = their_model(path, device, dtype), {}
    short = [(Turn(talk[0].ids, 2),) for talk in other]
    time_theirs(model, short, rows, lambda new: None)  # warm, as ours was, by other prompts
    for name, together in (("HuggingFace, one by one", 1), ("HuggingFace, padded", rows)):
        with progress(asked, name) as bar:
            theirs = time_theirs(model, asked, together, bar.update)
        ratio = runs["nanoserve"].rate / theirs.rate
        print(f"{line(name, theirs)}; nanoserve is {ratio:.2f} times as fast", flush=True)
        for where, margin in disagreements(model, asked, runs["nanoserve"], theirs):
            apart[f"{name}: {where}"] = margin
            say(f"{name}: {where}: another token, {margin:.1e} of the largest logit apart")
        runs[name] = theirs
    return apart


def progress(asked, name: str):
    """A bar over all new tokens, which are known before."""
    from tqdm import tqdm

    total = sum(turn.new for turns in asked for turn in turns)
    return tqdm(total=total, desc=name, unit=" tokens", leave=False)


def line(name: str, run) -> str:
    """A run in a line."""
    text = f"{name}: {run.rate:.1f} new tokens/s ({run.new_tokens} in {run.seconds:.1f} s"
    if run.cached_tokens:
        text += f", {run.cached_tokens} of {run.prompt_tokens} prompt tokens from the cache"
    text += ")"
    if run.first:
        text += f", first token after {statistics.median(run.first):.2f} s"
    if run.gaps:
        text += f", then one in {statistics.median(run.gaps) * 1000:.0f} ms (medians)"
    return text


def numbers(run) -> dict:
    """A run for JSON: counts, seconds, and percentiles of what a user waits for."""
    found = {
        "tokens_per_second": run.rate,
        "seconds": run.seconds,
        "new_tokens": run.new_tokens,
        "prompt_tokens": run.prompt_tokens,
        "cached_tokens": run.cached_tokens,
    }
    for field, waits in (("first_token_seconds", run.first), ("gap_seconds", run.gaps)):
        if len(waits) > 1:
            cut = statistics.quantiles(waits, n=100, method="inclusive")
            found[field] = {"p50": cut[49], "p90": cut[89], "p99": cut[98]}
    return found


def machine() -> dict:
    """What this was measured on, and when."""
    import torch

    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "nanoserve": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }
