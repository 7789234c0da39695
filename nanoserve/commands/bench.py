"""`nanoserve bench`: how fast the engine is here, HuggingFace beside it, or a server at --url."""

import argparse
import json
from pathlib import Path

from nanoserve.checkpoints import checkpoint_path
from nanoserve.checkpoints.catalog import DEFAULT
from nanoserve.commands import bench_url
from nanoserve.commands.bench_report import line, machine, numbers
from nanoserve.commands.common import add_engine, engine_settings, say

BAR = 1e-4  # of the largest logit: margins that other orders of adding can turn over
BAR_OF_HALVES = 5e-2  # the same in bf16 and fp16, which keep 8 and 11 bits
EXAMPLE = """\
example: nanoserve bench --requests 8 --longest 64 --hf

That takes half a minute on a laptop's CPU. What is measured if nothing is given, 2,200 new tokens,
takes a minute or two, and several times as long with --hf. nano-vllm's 256 requests want 134,000
new tokens: more than an hour on a CPU, and seconds on a GPU.
"""


def add(commands) -> None:
    """The arguments of `nanoserve bench`."""
    about = "measure the engine on this machine, or a server at --url"
    kind = argparse.RawDescriptionHelpFormatter  # keeps the lines of EXAMPLE
    given = {"help": about, "description": about, "epilog": EXAMPLE, "formatter_class": kind}
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
    from nanoserve.engine.llm import engine_on

    if args.json:
        check_writable(args.json)
    if args.url:
        return bench_url.run(args)
    bench_url.refuse(args)
    path, settings = checkpoint_path(args.checkpoint), engine_settings(args)
    name, temperature = args.workload or "chat", temperature_of(args)
    engine = engine_on(args.device)(path, **settings)
    asked, other = drawn(name, args, engine)
    runs = {"nanoserve": timed(engine, asked, other, temperature, name)}
    print(line("nanoserve", runs["nanoserve"]), flush=True)
    weight, apart = engine.model.embed.weight, {}
    if args.hf:
        rows = engine.scheduler.max_num_seqs
        apart = beside(path, asked, other, runs, rows, weight.device, weight.dtype)
    if args.json:
        found = {who: numbers(run) for who, run in runs.items()}
        told = {"checkpoint": path.name, "workload": name, "requests": args.requests}
        told |= {"longest": args.longest, "seed": args.seed, "temperature": temperature}
        told |= {"engine": settings, "machine": machine(), "runs": found, "apart": apart}
        args.json.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    bar = BAR if weight.itemsize == 4 else BAR_OF_HALVES
    if wrong := [what for what, margin in apart.items() if margin > bar]:
        raise ValueError(f"the texts of HuggingFace are others: {'; '.join(wrong)}")


def temperature_of(args: argparse.Namespace) -> float:
    """What was given, or the workload's own. ValueError where texts are to be compared."""
    if args.hf and args.temperature:
        raise ValueError("--hf compares texts, so both are greedy: leave --temperature out, or 0")
    usual = 0.0 if args.hf else 0.6
    return usual if args.temperature is None else args.temperature


def drawn(name: str, args: argparse.Namespace, engine) -> tuple[list, list]:
    """The workload, and two requests of another seed to warm up by. ValueError for what is none."""
    from nanoserve.bench.workloads import workload

    vocabulary = engine.model.config.vocab_size
    asked = workload(name, args.requests, args.seed, args.longest, vocabulary)
    check_lengths(engine, asked)
    return asked, workload(name, 2, args.seed + 1, args.longest, vocabulary)


def timed(engine, asked, other, temperature: float, name: str):
    """The engine's Run of a workload, once it is warm and with a bar over it; then an audit."""
    from nanoserve.bench.clock import time_engine

    time_engine(engine, other, temperature, lambda new: None)
    waits = name == "chat"  # nano-vllm's is of throughput alone
    with progress(asked, "nanoserve") as bar:
        run = time_engine(engine, asked, temperature, bar.update, waits)
    engine.audit()
    return run


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
