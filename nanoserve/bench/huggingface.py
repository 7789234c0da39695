"""HuggingFace's `generate` on a workload; whether it wrote the same.

Built in the book: day26. Edit there, then run book/tangle.py.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from os import PathLike

import torch
from torch import nn

from nanoserve.bench.clock import Run, said_before
from nanoserve.bench.workloads import Conversation
from nanoserve.reference import transformers


def their_model(path: str | PathLike, device="cpu", dtype=torch.float32) -> nn.Module:
    """HuggingFace's model, with no settings of the checkpoint's own."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, local_files_only=True
    )
    model.generation_config = transformers.GenerationConfig()
    return model.eval().to(device)


@torch.inference_mode()
def padded(model: nn.Module, prompts: Sequence[list[int]], most: int) -> list[list[int]]:
    """Their new ids, all prompts padded on the left to one width."""
    widest = max(map(len, prompts))
    rows = [[0] * (widest - len(p)) + p for p in prompts]
    seen = [[0] * (widest - len(p)) + [1] * len(p) for p in prompts]
    ids = torch.tensor(rows, device=model.device)
    settings = transformers.GenerationConfig(do_sample=False, max_new_tokens=most, pad_token_id=0)
    out = model.generate(
        ids,
        attention_mask=torch.tensor(seen).to(ids),
        generation_config=settings,
    )
    return out[:, widest:].tolist()


def waves(conversations: Sequence[Conversation], rows: int) -> Iterator[tuple[int, list[int]]]:
    """Which turn of which conversations go together: `rows` at most."""
    for turn in range(max(map(len, conversations))):
        alive = [i for i, c in enumerate(conversations) if turn < len(c)]
        for first in range(0, len(alive), rows):
            yield turn, alive[first : first + rows]


def time_theirs(
    model: nn.Module,
    conversations: Sequence[Conversation],
    rows: int,
    tick: Callable[[int], object],
    clock: Callable[[], float] = time.perf_counter,
) -> Run:
    """Greedily, `rows` at a time, each batch to its longest answer.

    Who wanted less has the rest cut off: it counts for nobody.
    """
    run = Run([[] for _ in conversations])
    start = clock()
    for turn, together in waves(conversations, rows):
        prompts = [said_before(conversations[i], run.answers[i]) for i in together]
        new = [conversations[i][turn].new for i in together]
        answers = padded(model, prompts, max(new))
        for i, ids, count in zip(together, answers, new, strict=True):
            run.answers[i].append(ids[:count])
        run.prompt_tokens += sum(map(len, prompts))
        tick(sum(new))
    run.seconds = clock() - start
    return run


@torch.inference_mode()
def disagreements(
    model: nn.Module,
    conversations: Sequence[Conversation],
    mine: Run,
    theirs: Run,
) -> Iterator[tuple[str, float]]:
    """Answers that differ, and by what margin where they first do.

    The margin is between the two tokens, by HuggingFace's model alone
    and without a cache, in units of its largest logit: what rounding
    can turn over is of the order of 1e-5. What a conversation says
    after that is another text, and is not compared.
    """
    for i, conversation in enumerate(conversations):
        pairs = zip(mine.answers[i], theirs.answers[i], strict=True)
        for turn, (ours, hers) in enumerate(pairs):
            if ours == hers:
                continue
            both = enumerate(zip(ours, hers, strict=True))
            at = next(k for k, (a, b) in both if a != b)
            before = said_before(conversation, theirs.answers[i][:turn])
            ids = torch.tensor([before + hers[:at]], device=model.device)
            scores = model(ids).logits[0, -1].float()
            margin = (scores[hers[at]] - scores[ours[at]]).abs()
            where = f"conversation {i}, turn {turn}, token {at}"
            yield where, (margin / scores.abs().max()).item()
            break
