"""vLLM on the same card, for bench-gpu.json: make bench-gpu runs it last, where it is installed.

The same weights, saved as a checkpoint, and the same ids and counts as gpu_engine.py has; vLLM's
own defaults, but for prefix caching: where texts share nothing it is off, as ours is, so that the
same prompts again are read again. With --chat it runs the chat alone, by the book's own clock and
with vLLM's default, which is to look for prefixes. In a process of its own, when ours has given
the card back.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault(
    "VLLM_USE_FLASHINFER_SAMPLER", "0"
)  # it would compile, for which nvcc must be
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from bench_gpu import added, lines_of, made_model
from gpu_engine import LONGEST, NEW, PROMPT, READ, REQUESTS, TOGETHER, numbers, quiet
from safetensors.torch import save_file

from nanoserve.bench.clock import time_engine
from nanoserve.bench.workloads import workload
from nanoserve.checkpoints.twin import CONFIG
from nanoserve.loader import key_map
from nanoserve.model import Llama

SHARE = 0.8  # of the card, for vLLM: the model lies there once more, to judge


def saved(model: Llama, folder: Path) -> str:
    """The model as a checkpoint that vLLM reads."""
    names = key_map(model.config)
    held = {names[n]: w.detach().cpu().contiguous() for n, w in model.named_parameters()}
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    return str(folder)


def started(path: str, found: dict, caching: bool):
    """vLLM, by its defaults; seconds to start, and the memory that the card has no more."""
    import vllm

    free, begin = torch.cuda.mem_get_info()[0], time.perf_counter()
    theirs = vllm.LLM(
        model=path, skip_tokenizer_init=True, dtype="bfloat16", max_model_len=8192,
        gpu_memory_utilization=SHARE, enable_prefix_caching=caching, disable_log_stats=True,
    )  # fmt: skip
    found["version"] = vllm.__version__
    found["lines of Python"] = lines_of(Path(vllm.__file__).parent)
    found["seconds to start"] = round(time.perf_counter() - begin, 1)
    found["GiB"] = round((free - torch.cuda.mem_get_info()[0]) / 2**30, 2)
    return theirs


class Clocked:
    """vLLM's engine as the book's clock wants one: see nanoserve/bench/clock.py."""

    def __init__(self, engine):
        self.engine = engine

    def add_request(self, name: str, ids: list[int], params) -> None:
        """The same law; vLLM is not to make text of it."""
        import vllm

        asked = vllm.SamplingParams(
            temperature=params.temperature, max_tokens=params.max_tokens, ignore_eos=True,
            detokenize=False,
        )  # fmt: skip
        self.engine.add_request(name, {"prompt_token_ids": list(ids)}, asked)

    def step(self, only_ended: bool = False) -> list:
        """What a step tells."""
        return [
            SimpleNamespace(
                request_id=told.request_id, token_ids=list(told.outputs[0].token_ids),
                finished=told.finished, num_cached_tokens=told.num_cached_tokens or 0,
            )
            for told in self.engine.step() if told.finished or not only_ended
        ]  # fmt: skip

    def abort(self, name: str) -> None:
        """After an error."""
        self.engine.abort_request([name])


def chat(model: Llama, path: str, found: dict) -> None:
    """The chat of gpu_engine.py, after two others of as many messages."""
    theirs = Clocked(started(path, found, caching=True).llm_engine)
    for seed in (1, 2, 0):
        talk = workload("chat", REQUESTS, seed, LONGEST, model.config.vocab_size)
        found["prefix caching"] = numbers(time_engine(theirs, talk, 0.0, quiet))


def measure(model: Llama, path: str, found: dict, save) -> None:
    """One text, several at once, nano-vllm's workload, a long prompt's first token."""
    import vllm

    theirs = started(path, found, caching=False)

    def wrote(prompts: list, new: list[int], temperature: float = 0.0) -> tuple[float, list]:
        given = [{"prompt_token_ids": list(ids)} for ids in prompts]
        asked = [
            vllm.SamplingParams(
                temperature=temperature, ignore_eos=True, max_tokens=n, detokenize=False
            )
            for n in new
        ]
        begin = time.perf_counter()
        outputs = theirs.generate(given, asked, use_tqdm=False)
        seconds = time.perf_counter() - begin
        ids = [list(output.outputs[0].token_ids) for output in outputs]
        assert [len(each) for each in ids] == new
        return seconds, ids

    V, drawn = model.config.vocab_size, torch.Generator().manual_seed(0)

    def prompt(n: int) -> list[int]:
        return torch.randint(0, V, (n,), generator=drawn).tolist()

    wrote([prompt(PROMPT)], [16])
    one = []
    for _ in range(5):
        short, whole = (wrote([prompt(PROMPT)], [n])[0] for n in (PROMPT, NEW + PROMPT))
        one.append(round(1e3 * (whole - short) / NEW, 4))
    found["one text, ms a token"] = sorted(one)
    found["together"] = {}
    for count in TOGETHER:
        texts = [prompt(PROMPT) for _ in range(count)]
        seconds, ids = [wrote(texts, [NEW] * count) for _ in "ab"][1]
        found["together"][count] = {
            "tok/s": round(count * NEW / seconds, 1), "seconds": round(seconds, 4)
        }  # fmt: skip
        if count == 1:  # fed back, the plain model must want the same ids
            read = torch.tensor([texts[0] + ids[0]], device=model.embed.weight.device)
            best = model.logits(model(read))[0, PROMPT - 1 : -1].argmax(-1)
            same = (best == read[0, PROMPT:]).double().mean().item()
            found["ids that plain torch chooses too"] = round(same, 4)
    asked = workload("nano-vllm", REQUESTS, 0, LONGEST, V)
    prompts, new = [c[0].ids for c in asked], [c[0].new for c in asked]
    wrote(prompts[:8], [16] * 8, 0.6)
    save()
    found["nano-vllm"] = []
    for _ in "abc":
        seconds, _ = wrote(prompts, new, 0.6)
        told = {"tok/s": round(sum(new) / seconds, 1), "seconds": round(seconds, 4)}
        found["nano-vllm"].append(told)
    found["ttft"] = [round(1e3 * wrote([prompt(READ)], [1])[0], 3) for _ in range(5)]
    found["ttft, median"] = statistics.median(found["ttft"])


def main() -> None:
    """Adds vLLM's numbers to those that are there."""
    talks = "--chat" in sys.argv
    place = ("vllm", "chat") if talks else ("vllm",)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder, added(*place) as (found, save):
        model = made_model()
        path = saved(model, Path(folder))
        chat(model, path, found) if talks else measure(model, path, found, save)


if __name__ == "__main__":
    main()
