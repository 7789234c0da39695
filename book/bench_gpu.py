"""What only a GPU can tell, in one run: make bench-gpu, which writes bench-gpu.json.

Llama-3.2-1B's shape with made weights, in bf16: speed does not depend on their values. Parts take
turns with what they are compared with, in one process on one card. The pages of Week 5 read the
file by on_a_gpu.py. Without a GPU it runs a tiny model by Triton's interpreter, which tells whether
the script works, and writes nothing.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
import traceback
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

RESULTS = Path(__file__).resolve().parent / "bench-gpu.json"
PARTS = {
    "memory": gpu_kernels.memory,
    "step": gpu_steps.step,
    "one text": gpu_steps.one_text,
    "engine": gpu_engine.engine,
    "small kernels": gpu_kernels.small,
    "ladder": gpu_steps.ladder,
    "attention": gpu_kernels.attention,
    "errors": gpu_steps.errors,
    "transformers": gpu_engine.transformers,
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


def main() -> None:
    """Every part, or those named; each is written as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default all")
    parser.add_argument("--until", type=float, help="begin no part after so many seconds")
    parser.add_argument("--json", type=Path, default=RESULTS if ON_A_GPU else None)
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
    if args.json and not args.parts and importlib.util.find_spec("vllm"):
        del model
        torch.cuda.empty_cache()
        beside = [sys.executable, RESULTS.parent / "gpu_vllm.py", "--json", args.json]
        subprocess.run(beside, check=True)


if __name__ == "__main__":
    main()
