"""The engine on made models, against HuggingFace's `generate` and its own batches: Day 16."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nanoserve.checks.engine_aborts import check_aborts, check_audit
from nanoserve.checks.engine_calls import check_engine_calls
from nanoserve.checks.generating import sure_ids, their_greedy
from nanoserve.checks.model import VARIANTS, VOCAB, make
from nanoserve.checks.model_loading import load
from nanoserve.checks.serving import Mix, check_mode, mix_of
from nanoserve.checks.their_batches import their_batch
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.engine.request import RequestOutput
from nanoserve.generate import generate
from nanoserve.reference import transformers


def check_made(board: Scoreboard, modes: dict[str, dict[str, Any]]) -> dict[str, float]:
    """All modes and promises on one made model, a cramped pool on another; the smallest margin."""
    margins = []
    for variant, some in ((VARIANTS[0], [*modes]), (VARIANTS[1], ["in a cramped pool"])):
        theirs = make(variant | {"max_position_embeddings": 64}).eval()
        theirs.generation_config = transformers.GenerationConfig()
        with tempfile.TemporaryDirectory() as folder:
            theirs.save_pretrained(Path(folder) / MADE_UP)
            model = load(Path(folder) / MADE_UP)
        if len(some) > 1:
            check_audit(model)
            check_engine_calls(model)
            check_aborts(model)
        mix = mix_of(VOCAB)
        wanted = [their_greedy(theirs, ids, p.max_tokens, ()) for ids, p in mix[:8]]
        alone = [generate(model, *asked) for asked in mix[8:]]
        two = torch.cat([steps for _, steps in wanted]).topk(2).values
        margins.append((two[:, 0] - two[:, 1]).min().item())
        for mode in some:
            mine = check_mode(board, model, mix, wanted, alone, mode)
        check_their_batch(board, theirs, mix[:8], mine, wanted)
    return {MADE_UP: min(margins)}


def check_their_batch(
    board: Scoreboard, theirs: nn.Module, mix: Mix, mine: list[RequestOutput], wanted: list
) -> None:
    """The second judge: what HuggingFace's continuous batching gives, all prompts at once."""
    most = min(params.max_tokens for _, params in mix)
    batch = their_batch(theirs, [ids for ids, _ in mix], most)
    for i, ((_, steps), together) in enumerate(zip(wanted, batch, strict=True)):
        sure = sure_ids(mine[i].token_ids[:most], together, steps[:most])
        board.compare(None, "ids, against its continuous batching", f"request {i}", *sure)
