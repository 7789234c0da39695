"""One pass of the model for a plan, and a token for each who is due.

Built in the book: day16. Edit there, then run book/tangle.py.
"""

from collections.abc import Sequence

import torch

from nanoserve.engine.plan import Plan
from nanoserve.engine.pool import KVPool, Span
from nanoserve.engine.request import Request
from nanoserve.model import Llama
from nanoserve.sampling import Logprob, logprobs_of, process, sample


class Runner:
    """A model and the pool that holds its keys and values."""

    def __init__(self, model: Llama, pool: KVPool):
        self.model, self.pool = model, pool

    @torch.inference_mode()
    def logits(self, plan: Plan) -> torch.Tensor:
        """Read all shares in one row (1, T); scores (N, V) of the due."""
        ids, positions, spans, last = [], [], [], []
        for share in plan.shares:
            start, new = share.start, len(share.ids)
            ids += share.ids
            positions += range(start, start + new)
            spans.append(Span(share.request.table, start, new))
            if share.samples:
                last.append(len(ids) - 1)
        device = self.model.embed.weight.device
        row = torch.tensor([ids, positions], device=device)  # (2, T)
        attends = self.pool.attends(spans)
        x = self.model(row[:1], row[1], attends)[0]  # (T, C)
        return self.model.logits(x[last])

    @torch.inference_mode()
    def run(self, plan: Plan) -> tuple[list[int], list[dict[int, Logprob]]]:
        """The next token of each share that samples, and its logprobs."""
        due = [share.request for share in plan.sampling]
        return draw(self.logits(plan), due)


def draw(
    logits: torch.Tensor, due: Sequence[Request]
) -> tuple[list[int], list[dict[int, Logprob]]]:
    """The next token of each request that is due, and its logprobs.

    `logits` (N, V) has a row for each. Without logprobs: {}.
    """
    params = [r.params for r in due]
    texts = [(r.prompt_ids, r.output_ids) for r in due]
    scores = process(logits, params, texts)
    seeds = [p.seed for p in params]
    places = [len(output) for _, output in texts]
    ids = sample(scores, seeds, places).tolist()
    rows = zip(logits, ids, params, strict=True)
    asked = [{} if p.logprobs is None else logprobs_of(row, i, p.logprobs) for row, i, p in rows]
    return ids, asked
