"""A pass in kernels, and the steps that graphs record, against HuggingFace's model: Day 24."""

import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import nn

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.engine.pool import KVPool
from nanoserve.kernels.attention import paged_attention, reading
from nanoserve.kernels.fused import FusedLlama, fuse
from nanoserve.kernels.graphs import DecodeGraphs, Rows
from nanoserve.layers import Linear
from nanoserve.model import Llama
from nanoserve.reference import transformers
from nanoserve.sampling import SamplingParams, process, sample, uniform

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VOCAB = 61
MADE = {
    "vocab_size": VOCAB,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-3,
    "tie_word_embeddings": False,
}
TIED = {"tie_word_embeddings": True, "num_key_value_heads": 2, "num_hidden_layers": 1}


def made(**changes: object) -> tuple[nn.Module, Llama]:
    """HuggingFace's small model, seeded, and ours of what it saved, on the GPU if there is one."""
    torch.manual_seed(3)
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**MADE | changes)).eval()
    for p in theirs.parameters():
        if p.dim() == 1:
            nn.init.uniform_(p.data, 0.5, 1.5)
        else:
            nn.init.normal_(p.data, std=p.shape[1] ** -0.5)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(Path(folder) / MADE_UP)
        return theirs, Llama.from_pretrained(Path(folder) / MADE_UP).to(DEVICE)


def tokens(B: int, T: int) -> torch.Tensor:
    """Seeded ids (B, T)."""
    return torch.randint(VOCAB, (B, T), generator=torch.Generator().manual_seed(5))


def poisoned(model: Llama, num_blocks: int, size: int) -> KVPool:
    """A pool that is NaN wherever nobody wrote."""
    pool = KVPool(model.config, num_blocks, size, device=DEVICE)
    pool.k.fill_(torch.nan), pool.v.fill_(torch.nan)
    return pool


def check_fuse() -> None:
    """One weight of several, whose layers stay what they are and hold nothing of their own."""
    layers = [Linear(5, n) for n in (7, 2, 3)]
    for layer in layers:
        layer.weight.data.normal_()
    before, inputs = [layer.weight.clone() for layer in layers], torch.randn(4, 5)
    weight = attempt("fuse", fuse, *layers)
    agree("shape of the fused weight", [*weight.shape], [12, 5])
    holds("fused is one below the other", torch.equal(weight, torch.cat(before)))
    for layer, old in zip(layers, before, strict=True):
        holds("a layer's weight is what it was", torch.equal(layer.weight, old))
        same = layer.weight.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
        holds("a layer's weight is a part of the fused one", same)
    parts = torch.cat([layer(inputs) for layer in layers], -1)
    torch.testing.assert_close(inputs @ weight.T, parts)


def check_fused(board: Scoreboard, theirs: nn.Module, model: Llama, sizes: tuple) -> None:
    """A text in chunks, over a poisoned pool, all places and the last alone."""
    ids = tokens(1, sum(sizes))
    wanted = theirs(ids).logits[0]
    top, size = wanted.abs().max(), 3
    pool, fused = poisoned(model, 9, size), attempt("FusedLlama", FusedLlama, model, 40)
    table = [40, model.config.head_dim // 2]
    agree("RoPE's tables", [[*fused.cos.shape], [*fused.sin.shape]], [table, table])
    after = model.logits(model(ids.to(DEVICE)))[0].cpu()
    board.compare(None, "the model that was fused", "scores", after / top, wanted / top)
    tables = torch.tensor([[7, 3, 6, 0, 2, 5, 1, 4]], dtype=torch.int32, device=DEVICE)
    G, done = model.config.num_attention_heads // model.config.num_key_value_heads, 0
    for i, new in enumerate(sizes):
        place = torch.arange(done, done + new, device=DEVICE)
        which = reading(tables, [(new, done, 0)], G)
        slots = tables[0, place // size].long() * size + place % size
        last = torch.tensor([new - 1], device=DEVICE) if i % 2 else None

        def attend(q, keys, values, which=which):
            return paged_attention(q, keys, values, which, size)

        asked = ids[0, done : done + new].to(DEVICE), place, slots
        held = {"keys": pool.k, "values": pool.v}  # to be written
        score = partial(fused.scores, **held, attend=attend, last=last)
        mine = attempt("FusedLlama.scores", score, *asked).cpu()
        done += new
        right = wanted[done - 1 : done] if i % 2 else wanted[done - new : done]
        board.compare(None, "a fused pass, in chunks", f"chunk {i}", mine / top, right / top)


def check_steps(
    board: Scoreboard, theirs: nn.Module, model: Llama, counts: tuple, size: int
) -> None:
    """Batches of `counts` texts, each at its own place, wide then narrow, over a poisoned pool.

    After every step all that no text has written is NaN, nobody's block too.
    """
    most, T = max(counts), len(counts) + 1
    ids, width = tokens(most, T), -(-T // size)
    wanted = theirs(ids).logits  # (most, T, V)
    top = wanted.abs().max()
    pool = poisoned(model, most * width + 1, size)
    rows = Rows(most, width + 1, pool)
    graphs = attempt("DecodeGraphs", DecodeGraphs, FusedLlama(model, 40), pool, rows)
    if DEVICE == "cuda":
        graphs.record()
    seeded = torch.Generator().manual_seed(1)
    blocks = torch.randperm(most * width, generator=seeded).view(most, width)
    rows.tables[:most, :width] = blocks.int()
    length = [0] * most
    for turn, count in enumerate(counts):
        some = torch.randperm(most, generator=seeded)[:count].tolist()
        at = [length[row] for row in some]
        rows.ids[some] = ids[some, at].to(DEVICE)
        before, nobody = rows.ids.clone(), rows.nobody
        heat = [(0.0, 0.8, 1.5)[(row + turn) % 3] for row in some]
        points = [uniform(row, turn) for row in some]
        graphs.tell(some, at, heat, points)
        scores, chosen = attempt(f"a step of {count}", graphs.play, count, max(at))
        right, what = wanted[some, at], f"{count} texts of {most}"
        board.compare(None, "a step of B texts", what, scores.cpu() / top, right / top)
        params = [SamplingParams(temperature=t) for t in heat]
        drawn = sample(process(right, params, [((), ())] * count), some, [turn] * count)
        agree(f"{what}: the ids", chosen.tolist(), drawn.tolist())
        before[some], before[nobody] = drawn.to(DEVICE), rows.ids[nobody]
        agree(f"{what}: newest ids of all rows", rows.ids.tolist(), before.tolist())
        for row in some:
            length[row] += 1
        wipe(pool, blocks, length)


def wipe(pool: KVPool, blocks: torch.Tensor, length: list[int]) -> None:
    """NaN but where each text has written."""
    size, gone = pool.block_size, torch.ones(pool.k.shape[1], dtype=torch.bool)
    for table, end in zip(blocks.tolist(), length, strict=True):
        gone[[table[p // size] * size + p % size for p in range(end)]] = False
    gone = gone.to(DEVICE)
    pool.k[:, gone], pool.v[:, gone] = torch.nan, torch.nan
