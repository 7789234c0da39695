"""HuggingFace's own `generate` on the same workload, and whether it wrote the same."""

import time
from collections.abc import Callable, Iterator, Sequence
from os import PathLike

import torch
from torch import nn

from nanoserve.bench.clock import Run, said_before
from nanoserve.bench.workloads import Conversation
from nanoserve.reference import transformers


def their_model(path: str | PathLike, device="cpu", dtype=torch.float32) -> nn.Module:
    """HuggingFace's model as it comes, with none of the checkpoint's own settings for text."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, local_files_only=True
    )
    model.generation_config = transformers.GenerationConfig()
    return model.eval().to(device)


@torch.inference_mode()
def padded(model: nn.Module, prompts: Sequence[list[int]], most: int) -> list[list[int]]:
    """Their new ids, all prompts padded on the left to one width."""
    widest = max(map(len, prompts))
    ids = torch.tensor([[0] * (widest - len(p)) + p for p in prompts], device=model.device)
    seen = torch.tensor([[0] * (widest - len(p)) + [1] * len(p) for p in prompts]).to(ids)
    settings = transformers.GenerationConfig(do_sample=False, max_new_tokens=most, pad_token_id=0)
    return model.generate(ids, attention_mask=seen, generation_config=settings)[:, widest:].tolist()


def waves(conversations: Sequence[Conversation], rows: int) -> Iterator[tuple[int, list[int]]]:
    """Which turn of which conversations are written together: `rows` at most."""
    for turn in range(max(map(len, conversations))):
        alive = [i for i, c in enumerate(conversations) if turn < len(c)]
        for first in range(0, len(alive), rows):
            yield turn, alive[first : first + rows]


def time_theirs(
    model: nn.Module,
    conversations: Sequence[Conversation],
    rows: int,
    tick: Callable[[int], object],
) -> Run:
    """Greedily, `rows` at a time (1: one after another), each batch to its longest answer."""
    run = Run([[] for _ in conversations])
    start = time.perf_counter()
    for turn, together in waves(conversations, rows):
        prompts = [said_before(conversations[i], run.answers[i]) for i in together]
        new = [conversations[i][turn].new for i in together]
        answers = padded(model, prompts, max(new))
        for i, ids, count in zip(together, answers, new, strict=True):
            run.answers[i].append(ids[:count])
        run.prompt_tokens += sum(map(len, prompts))
        tick(sum(new))
    run.seconds = time.perf_counter() - start
    return run


@torch.inference_mode()
def disagreements(
    model: nn.Module, conversations: Sequence[Conversation], mine: Run, theirs: Run
) -> Iterator[tuple[str, float]]:
    """The answers that differ, and how far apart the two tokens are where they first do.

    That is HuggingFace's own margin, alone and without a cache, in units of its largest logit: what
    rounding alone can turn over is of the order of 1e-5. What a conversation says after that is
    another text, and is not compared.
    """
    for i, conversation in enumerate(conversations):
        pairs = zip(mine.answers[i], theirs.answers[i], strict=True)
        for turn, (ours, hers) in enumerate(pairs):
            if ours == hers:
                continue
            at = next(k for k, (a, b) in enumerate(zip(ours, hers, strict=True)) if a != b)
            text = said_before(conversation, theirs.answers[i][:turn]) + hers[:at]
            logits = model(torch.tensor([text], device=model.device)).logits[0, -1].float()
            margin = (logits[hers[at]] - logits[ours[at]]).abs() / logits.abs().max()
            yield f"conversation {i}, turn {turn}, token {at}", margin.item()
            break
