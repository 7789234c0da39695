"""A mix of real prompts on a checkpoint, against HuggingFace alone: Day 16."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from nanoserve.checks.common import agree, attempt
from nanoserve.checks.generating import sure_ids, their_model
from nanoserve.checks.generating_pieces import GREEDY
from nanoserve.checks.serving import Mix, serve
from nanoserve.comparison import Scoreboard
from nanoserve.config import ModelConfig
from nanoserve.engine.engine import Engine
from nanoserve.model import Llama
from nanoserve.products import use_onednn
from nanoserve.reference import our_name

TEXTS = (  # 3 to 33 tokens of SmolLM2, and two that begin alike
    "The capital of France is",
    "Water boils at",
    "def mean(values):\n    return sum(values) /",
    "Once upon a time there was a queen who had no crown, and every morning she went down to "
    "the river to look for it.",
    "The opposite of hot is",
    "The capital of Italy is",
    "1, 1, 2, 3, 5, 8,",
    "She opened the door, looked around and",
)
MODES = {
    "in company": {"num_blocks": 32},
    "cramped, in chunks of 11": {
        "block_size": 3,
        "num_blocks": 24,
        "max_num_seqs": 5,
        "max_num_batched_tokens": 11,
    },
}


def mix_of(path: Path, vocab: int) -> Mix:
    """Eight requests with 3 to 5 new tokens: texts, or seeded ids where there is no tokenizer."""
    file = path / "tokenizer.json"
    if file.is_file():
        encode = Tokenizer.from_file(str(file)).encode
        prompts = [[i % vocab for i in encode(text).ids] for text in TEXTS]
    else:
        seeded = torch.Generator().manual_seed(0)
        rows = torch.randint(min(500, vocab), (8, 33), generator=seeded).tolist()
        prompts = [row[:n] for row, n in zip(rows, (1, 3, 5, 8, 15, 16, 17, 33), strict=True)]
    return [(ids, replace(GREEDY, max_tokens=3 + i % 3)) for i, ids in enumerate(prompts)]


def with_their_weights(theirs: nn.Module, path: Path) -> Llama:
    """Our model of the checkpoint, on the tensors that HuggingFace has loaded: no second load."""
    with torch.device("meta"):
        model = Llama(ModelConfig.from_pretrained(path))
    names = {name for name, _ in model.named_parameters()}
    read = {our_name(name): p for name, p in theirs.named_parameters()}
    model.load_state_dict({name: read[name] for name in names}, assign=True)
    use_onednn(model)  # as an engine does that loads it
    return model.requires_grad_(False).eval()


@torch.inference_mode()
def steps_of(theirs: nn.Module, prompt: Sequence[int], output: Sequence[int]) -> torch.Tensor:
    """HuggingFace's scores (n, V) of each new token, the whole text alone in one pass, no cache.

    As long as each best one is the token that was written, that is its greedy text.
    """
    ids = torch.tensor([[*prompt, *output]])
    return theirs(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]


def compare_mix(board: Scoreboard, path: Path) -> dict[str, float]:
    """Ids, scores and texts of the mix in two engines; the smallest margin that was met.

    Made-up ids, where there is no tokenizer, go through the cramped one alone.
    """
    theirs = their_model(path)
    mix, margins, known = mix_of(path, theirs.config.vocab_size), [], {}
    model, file = path, path / "tokenizer.json"
    library = Tokenizer.from_file(str(file)) if file.is_file() else None
    for mode, settings in MODES.items() if library else [*MODES.items()][1:]:
        settings = {"enable_prefix_caching": False} | settings
        engine = attempt(f"Engine({path}), {mode}", Engine, model, **settings)
        model = engine.model
        mine, scores = serve(mode, engine, mix)
        for i, ((prompt, params), output) in enumerate(zip(mix, mine, strict=True)):
            name, text = f"prompt {i} {mode}", (*prompt, *output.token_ids)
            if text not in known:
                known[text] = steps_of(theirs, prompt, output.token_ids)
            two, ids = known[text].topk(2), known[text].argmax(-1).tolist()
            margins.append((two.values[:, 0] - two.values[:, 1]).min().item())
            board.compare(path, "ids", name, *sure_ids(output.token_ids, ids, known[text]))
            agree(f"{name}: number of ids", len(ids), params.max_tokens)
            rows, top = torch.stack(scores[str(i)]), known[text].abs().max()
            what = "scores of every step, of the largest"
            board.compare(path, what, name, rows / top, known[text] / top)
            if engine.tokenizer is not None:
                agree(f"{name}: text", output.text, library.decode(output.token_ids))
    return {path.name: min(margins)}
