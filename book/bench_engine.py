"""The engine beside HuggingFace, on one mix of requests: the part "engine" of bench.py."""

import logging
import time
from pathlib import Path

import torch

CONTESTANTS = ("ours", "hf-one-by-one", "hf-padded", "hf-continuous")
REQUESTS = 16
TURNS, SAID, ANSWER = 10, 48, 16  # of a chat: turns, and tokens of a question and of an answer
SHORT, LONG = (3, 8), (130, 40)  # tokens of a prompt and of its answer, the least and the most


def mix(vocabulary: int) -> list[tuple[list[int], int]]:
    """Seeded prompts and how many tokens each wants."""
    seeded = torch.Generator().manual_seed(0)
    lengths = torch.randint(SHORT[0], LONG[0] + 1, (REQUESTS,), generator=seeded).tolist()
    new = torch.randint(SHORT[1], LONG[1] + 1, (REQUESTS,), generator=seeded).tolist()
    lengths[:2], new[2:4] = (SHORT[0], LONG[0]), (SHORT[1], LONG[1])
    ids = [torch.randint(vocabulary, (n,), generator=seeded).tolist() for n in lengths]
    return list(zip(ids, new, strict=True))


def ours(path: Path):
    """A function of a mix that gives the new ids of each request."""
    from nanoserve.engine.llm import LLM
    from nanoserve.sampling import SamplingParams

    llm = LLM(path, max_num_seqs=REQUESTS)

    def write(asked):
        params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for _, n in asked]
        return [o.token_ids for o in llm.generate([ids for ids, _ in asked], params)]

    return write, llm


def theirs(mode: str, path: Path):
    """The same by HuggingFace: each alone, all padded to one width, or continuous batching."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model.generation_config = GenerationConfig()

    def settings(n):
        return GenerationConfig(do_sample=False, max_new_tokens=n, eos_token_id=-1, pad_token_id=0)

    def padded(asked):
        widest = max(len(ids) for ids, _ in asked)
        rows = torch.tensor([[0] * (widest - len(ids)) + ids for ids, _ in asked])
        seen = torch.tensor([[0] * (widest - len(ids)) + [1] * len(ids) for ids, _ in asked])
        most = settings(max(n for _, n in asked))
        out = model.generate(rows, attention_mask=seen, generation_config=most)
        return [row[widest : widest + n].tolist() for row, (_, n) in zip(out, asked, strict=True)]

    def continuous(asked):
        logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
        got = {}
        with model.continuous_batching_context_manager(
            generation_config=settings(LONG[1])
        ) as manager:
            for i, (ids, n) in enumerate(asked):
                manager.add_request(ids, request_id=str(i), max_new_tokens=n)
            while len(got) < len(asked):
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    got[result.request_id] = result.generated_tokens
        return [got[str(i)] for i in range(len(asked))]

    return {
        "hf-one-by-one": lambda asked: [padded([one])[0] for one in asked],
        "hf-padded": padded,
        "hf-continuous": continuous,
    }[mode]


def measure_engine(mode: str, path: str) -> dict:
    """New tokens a second over the whole mix, and the ids, after a small one to warm up."""
    from nanoserve.config import ModelConfig

    asked = mix(ModelConfig.from_pretrained(path).vocab_size)
    write = ours(Path(path))[0] if mode == "ours" else theirs(mode, Path(path))
    write([(ids[:4], 2) for ids, _ in asked[:2]])
    start = time.perf_counter()
    ids = write(asked)
    seconds = time.perf_counter() - start
    assert [len(one) for one in ids] == [n for _, n in asked]
    return {"rate": sum(map(len, ids)) / seconds, "ids": ids}


def measure_python(mode: str, path: str) -> dict:
    """What a step of 16 rows spends outside of the model and of sampling, as a share.

    The clock runs around the model's passes, its head, and the choice of tokens: what is left is
    scheduler, block manager, the slots of the pool, the runner's own lines, and the outputs.
    """
    from nanoserve.engine import runner
    from nanoserve.sampling import SamplingParams

    _, llm = ours(Path(path))
    engine, inside = llm.engine, [0.0]

    def timed(function):
        def call(*given):
            start = time.perf_counter()
            result = function(*given)
            inside[0] += time.perf_counter() - start
            return result

        return call

    engine.model.forward, engine.model.logits = (
        timed(engine.model.forward),
        timed(engine.model.logits),
    )
    runner.process, runner.sample = timed(runner.process), timed(runner.sample)
    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    for i, (ids, _) in enumerate(mix(engine.model.config.vocab_size)):
        engine.add_request(str(i), ids[:100], params)
    for _ in range(8):  # all prompts are read by then
        engine.step()
    inside[0], start = 0.0, time.perf_counter()
    for _ in range(20):
        assert len(engine.step()) == REQUESTS
    total = time.perf_counter() - start
    return {"share": 1 - inside[0] / total}


def measure_chat(mode: str, path: str) -> dict:
    """Seconds of a chat of ten turns, with the cache of prefixes ("cached") or without ("plain").

    Every turn sends all that was said before, by either side, and a seeded question.
    """
    from nanoserve.engine.llm import LLM
    from nanoserve.sampling import SamplingParams

    llm = LLM(path, enable_prefix_caching=mode == "cached")
    vocabulary, seeded = llm.engine.model.config.vocab_size, torch.Generator().manual_seed(0)
    asked = torch.randint(vocabulary, (TURNS + 1, SAID), generator=seeded).tolist()
    params = SamplingParams(temperature=0, max_tokens=ANSWER, ignore_eos=True)
    llm.generate(asked.pop()[:4], params)  # to warm up
    talk, ids, start = [], [], time.perf_counter()
    for question in asked:
        talk += question
        output = llm.generate(talk, params)[0]
        ids += output.token_ids
        talk += output.token_ids
    return {"seconds": time.perf_counter() - start, "ids": ids}


def bench_chat(turns, rounds: int, path: Path) -> dict:
    """Both ways; they must have written the same."""
    found = turns("chat", ("cached", "plain"), rounds, path)
    ids = [run for fields in found.values() for run in fields.pop("ids")]
    if any(run != ids[0] for run in ids):
        print("a chat of ten turns: its text is another with the cache than without")
    return found


def bench_engine(turns, rounds: int, path: Path) -> dict:
    """Every contestant's tokens a second, and Python's share; all must have written the same."""
    found = turns("engine", CONTESTANTS, rounds, path)
    right = found["ours"]["ids"][0]
    for name, fields in found.items():
        same = [sum(a == b for a, b in zip(run, right, strict=True)) for run in fields.pop("ids")]
        fields["equal"] = [count / REQUESTS for count in same]
        if min(fields["equal"]) < 1:
            print(f"{name}: of {REQUESTS} texts {same} are those of the engine")
    python = turns("python", ("ours",), rounds, path)
    return {"mix": found, "python": python, "chat": bench_chat(turns, rounds, path)}


def rows(results: dict, row):
    """Its rows in the table."""
    if "engine" in results:
        found = results["engine"]
        yield row("the engine, a mix of 16 requests", found["mix"], "rate", "tokens/s", 1)
        yield row("the engine, equal texts", found["mix"], "equal", "%", 100)
        yield row("the engine, Python at 16 rows", found["python"], "share", "% of a step", 100)
        if "chat" in found:
            yield row("a chat of ten turns, with a prefix cache", found["chat"], "seconds", "s", 1)
