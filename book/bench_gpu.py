"""What only a GPU can tell, in one run: make bench-gpu, which writes the file of its card.

Llama-3.2-1B's shape with made weights, in bf16: speed does not depend on their values. Parts take
turns with what they are compared with, in one process on one card. The pages of Week 5 read the
file by on_a_gpu.py. Without a GPU it runs a tiny model by Triton's interpreter, which tells whether
the script works, and writes nothing.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import gpu_engine
import gpu_kernels
import gpu_steps
import torch
from gpu_clock import ON_A_GPU

import nanoserve
from nanoserve.checkpoints.twin import CONFIG
from nanoserve.config import ModelConfig
from nanoserve.model import Llama

BOOK = Path(__file__).resolve().parent
BESIDE = {  # contestants in processes of their own, when ours has given the card back: seconds
    "gpu_transformers.py": 450,
    "gpu_continuous.py": 360,
    "gpu_vllm.py": 240,
    "gpu_vllm.py --chat": 150,
}
PARTS = {
    "memory": gpu_kernels.memory,
    "step": gpu_steps.step,
    "one text": gpu_steps.one_text,
    "engine": gpu_engine.engine,
    "small kernels": gpu_kernels.small,
    "ladder": gpu_steps.ladder,
    "attention": gpu_kernels.attention,
    "errors": gpu_steps.errors,
}
TINY = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1, "head_dim": 32}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 200}


def made_model() -> Llama:
    """The real shape with made weights on a GPU, and a tiny one elsewhere."""
    torch.manual_seed(0)
    config = ModelConfig.from_dict(CONFIG if ON_A_GPU else CONFIG | TINY)
    with torch.device("cuda" if ON_A_GPU else "cpu"):
        model = Llama(config)
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.data.uniform_(0.5, 1.5)
            else:  # of unit scale: nothing grows or fades from block to block
                weight.data.normal_(0, 1.0 if "embed" in name else weight.shape[1] ** -0.5)
    return model.to(torch.bfloat16 if ON_A_GPU else torch.float32).eval().requires_grad_(False)


def machine() -> dict:
    """Card, versions and date."""
    found = {"date": datetime.now(timezone.utc).date().isoformat(), "torch": torch.__version__}
    found["nanoserve"] = nanoserve.__version__
    if ON_A_GPU:
        card = torch.cuda.get_device_properties(0)
        found |= {"card": card.name, "SMs": card.multi_processor_count}
        found |= {"memory": card.total_memory, "CUDA": torch.version.cuda}
    for name in ("triton", "transformers"):
        found[name] = __import__(name).__version__
    return found


def results() -> Path:
    """The file of this card: book/bench-gpu-h200.json, say. Week 5 reads it and the H100's."""
    name = torch.cuda.get_device_name().lower()
    card = next((word for word in name.split() if any(map(str.isdigit, word))), "card")
    return BOOK / ("bench-gpu.json" if card == "h100" else f"bench-gpu-{card}.json")


def lines_of(package: Path) -> int:
    """Lines of Python under a folder: docstrings and empty ones too."""
    return sum(len(file.read_bytes().splitlines()) for file in package.rglob("*.py"))


def softly(measure: Callable[[], dict]) -> dict:
    """What it gives, or how it failed: the others go on."""
    try:
        return measure()
    except Exception as error:
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"[:400]}


@contextlib.contextmanager
def added(*place: str) -> Iterator[tuple[dict, Callable[[], None]]]:
    """A place in the file that --json names, and what saves it; failures are told there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, default=results() if ON_A_GPU else None)
    file = parser.parse_known_args()[0].json
    found = json.loads(file.read_text("utf-8")) if file and file.exists() else {}
    mine = found
    for name in place:
        mine = mine.setdefault(name, {})
    mine.clear()

    def save() -> None:
        if file:
            file.write_text(json.dumps(found, indent=1) + "\n", "utf-8")

    try:
        yield mine, save
    except Exception as error:
        traceback.print_exc()
        mine["failed"] = f"{type(error).__name__}: {error}"[:400]
    save()
    print(json.dumps(mine, indent=1), flush=True)


def run_for(seconds: float, command: list) -> None:
    """A process and its children, which are ended after so long: what they have written is kept."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        print(f"ended after {seconds} seconds", flush=True)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> None:
    """Every part, or those named; each is written as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default all")
    parser.add_argument("--until", type=float, help="begin no part after so many seconds")
    parser.add_argument("--json", type=Path, default=results() if ON_A_GPU else None)
    args = parser.parse_args()
    if unknown := {*args.parts} - {*PARTS}:
        parser.error(f"there is no part {', '.join(unknown)}: {', '.join(PARTS)} are all")
    began, found = time.monotonic(), {"machine": machine()}
    if args.json and args.json.exists() and args.parts:  # the others stay
        found = json.loads(args.json.read_text("utf-8")) | found
    with torch.no_grad():
        model = made_model()
        for name in args.parts or PARTS:
            spent = time.monotonic() - began
            if args.until and spent > args.until:
                print(f"{spent:6.1f} s: no time for {name}", flush=True)
                continue
            print(f"{spent:6.1f} s: {name}", flush=True)
            found[name] = {}
            try:
                PARTS[name](model, found[name])
            except Exception:  # what was measured before it is kept, and what is left goes on
                traceback.print_exc()
            if args.json:
                args.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(f"{time.monotonic() - began:6.1f} s: done")
    if args.json and not args.parts:
        del model
        torch.cuda.empty_cache()
        for told, seconds in BESIDE.items():
            script, *more = told.split()
            if script == "gpu_vllm.py" and not importlib.util.find_spec("vllm"):
                continue
            print(f"{time.monotonic() - began:6.1f} s: {told}", flush=True)
            command = [sys.executable, BOOK / script, *more, "--json", args.json]
            run_for(seconds, command)


if __name__ == "__main__":
    main()
