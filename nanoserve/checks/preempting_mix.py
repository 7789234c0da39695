"""Real prompts in a pool that is too small, on a checkpoint, against HuggingFace alone: Day 17."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.generating import sure_ids, their_model
from nanoserve.checks.generating_pieces import GREEDY
from nanoserve.checks.preempting import PLAIN, streams
from nanoserve.checks.serving_mix import mix_of, with_their_weights
from nanoserve.comparison import Scoreboard
from nanoserve.engine.engine import Engine
from nanoserve.sampling import SamplingParams, process, sample

# Four tokens each, a block. In the second step the first of the three needs one more: both others
# are stopped, and come back one after the other.
TEXTS, PROMPT = (2, 3, 7), 4  # which of the mix
SETTINGS = PLAIN | {"block_size": 4, "num_blocks": 3}
PARAMS = (
    replace(GREEDY, max_tokens=2),
    replace(GREEDY, max_tokens=2),
    replace(GREEDY, temperature=1.0, top_p=0.95, seed=2, max_tokens=2, logprobs=1),
)


def compare_preempted(board: Scoreboard, path: Path) -> dict[str, float]:
    """Three requests in too few blocks: ids, and the scores of every step; the least margin."""
    theirs = their_model(path)
    asked = mix_of(path, theirs.config.vocab_size)
    mix = [(asked[i][0][:PROMPT], params) for i, params in zip(TEXTS, PARAMS, strict=True)]
    model = with_their_weights(theirs, path)
    engine = attempt(f"Engine on {path.name}", Engine, model, **SETTINGS)
    heard, scores = streams("cramped", engine, mix)
    agree("how often somebody is stopped", engine.scheduler.num_preemptions, 2)
    outputs, margins = [heard[str(i)][-1].token_ids for i in range(len(mix))], []
    agree("number of ids", [*map(len, outputs)], [params.max_tokens for params in PARAMS])
    # Texts of one length: HuggingFace reads them in one pass, without padding.
    texts = torch.tensor([[*ids, *new] for (ids, _), new in zip(mix, outputs, strict=True)])
    with torch.inference_mode():
        scored = theirs(texts, use_cache=False).logits[:, PROMPT - 1 : -1]  # (N, n, V)
    for i, ((prompt, params), ids, steps) in enumerate(zip(mix, outputs, scored, strict=True)):
        name, last = f"prompt {i}", heard[str(i)][-1]
        wanted = ids_of(params, prompt, ids, steps)
        if params.temperature:
            agree(f"{name}: ids that are drawn from HuggingFace's scores", ids, wanted)
            check_logprobs(name, last.logprobs, ids, steps)
        else:
            two = steps.topk(2).values
            margins.append((two[:, 0] - two[:, 1]).min().item())
            board.compare(path, "ids", name, *sure_ids(ids, wanted, steps))
        rows, top = torch.stack(scores[str(i)]), steps.abs().max()
        board.compare(path, "scores of every step, of the largest", name, rows / top, steps / top)
    return {path.name: min(margins)}


def ids_of(
    params: SamplingParams, prompt: Sequence[int], ids: Sequence[int], steps: torch.Tensor
) -> list[int]:
    """What HuggingFace's scores (n, V) of each step give by Day 9's rules."""
    n = len(ids)
    texts = [(prompt, ids[:place]) for place in range(n)]
    scores = process(steps, [params] * n, texts)
    return sample(scores, [params.seed] * n, range(n)).tolist()


def check_logprobs(what: str, mine: list, ids: Sequence[int], steps: torch.Tensor) -> None:
    """The log of each drawn token's probability is that of HuggingFace's own scores."""
    logs = steps.log_softmax(-1)[range(len(ids)), list(ids)].tolist()
    off = max(abs(each[i].logprob - log) for each, i, log in zip(mine, ids, logs, strict=True))
    holds(f"{what}: logprobs must be the model's own", off < 1e-4, f"off by {off:.1e}")
