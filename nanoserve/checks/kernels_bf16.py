"""What bf16 costs Day 25's kernels, on a GPU."""

from copy import deepcopy
from pathlib import Path

import torch

from nanoserve.cache import KVCache
from nanoserve.checks.common import BF16, holds
from nanoserve.checks.kernels_decode_made import DEVICE
from nanoserve.checks.kernels_few import SIZE
from nanoserve.checks.model_loading import load
from nanoserve.engine.pool import KVPool
from nanoserve.generate import next_logits
from nanoserve.kernels.attention import Reading
from nanoserve.kernels.decode import FewTexts
from nanoserve.kernels.fused import FusedLlama


@torch.inference_mode()
def bf16_errors(path: Path, texts: int = 8, tokens: int = 24) -> torch.Tensor:
    """How far scores in bf16 are from float64's, (2, texts * tokens): ours, then plain torch's.

    Both take one token at a time, each with its own cache: another order of adding up is another
    rounding, and would be compared too.
    """
    model = load(path).to(DEVICE, BF16)
    exact, config = deepcopy(model).double(), model.config
    few, found = FusedLlama(model, 64), []
    tables = torch.tensor([[4, 1, 0, 5, 2, 3]], dtype=torch.int32, device=DEVICE)
    tiles = torch.zeros(1, 2, dtype=torch.int32, device=DEVICE)
    for seed in range(texts):
        drawn = torch.Generator().manual_seed(seed)
        ids = torch.randint(config.vocab_size, (1, tokens), generator=drawn).to(DEVICE)
        wanted, cache = exact.logits(exact(ids))[0], KVCache(config, 1, tokens, BF16, DEVICE)
        pool = KVPool(config, 6, SIZE, BF16, DEVICE)
        kernels = FewTexts(few, pool, 1)
        for place, right in enumerate(wanted):
            spans = torch.tensor([[0], [1], [place], [0]], dtype=torch.int32, device=DEVICE)
            new, reading = ids[0, place : place + 1], Reading(tables, spans, tiles, 1)
            ours = kernels.scores(reading, new, place % 2 == 0)[0].double()
            plain = next_logits(model, cache, new.tolist()).double()
            found.append(torch.stack([(x - right).norm() for x in (ours, plain)]))
    return torch.stack(found, 1).cpu()


def check_bf16(path: Path) -> None:
    """Of many tokens, the one in the middle: a few have errors far larger than the others."""
    if DEVICE != "cuda":
        return  # the interpreter cuts where a GPU rounds
    ours, theirs = bf16_errors(path).median(1).values.tolist()
    said = f"{ours:.3g} from float64, plain torch {theirs:.3g}"
    holds("in bf16 our error is plain torch's, or less", ours <= 1.05 * theirs, said)
