"""Every kernel against plain torch: by Triton's interpreter where there is no GPU, else on it.

Skipped where there is no Triton.
"""

import pytest
import torch

import nanoserve.kernels  # noqa: F401, which finds Triton

pytest.importorskip("triton")

from tiny import save_tiny

from nanoserve.checks.kernels_few import check_few
from nanoserve.checks.kernels_late import check_late
from nanoserve.comparison import Scoreboard
from nanoserve.engine.pool import KVPool
from nanoserve.kernels.attention import paged_attention, reading
from nanoserve.kernels.choice import choose
from nanoserve.kernels.fused import FusedLlama
from nanoserve.kernels.graphs import DecodeGraphs, Rows, sizes_up_to
from nanoserve.kernels.mlp import silu_mul
from nanoserve.kernels.norm import rms_norm
from nanoserve.layers import RMSNorm, causal_attention
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams, process, sample, uniform

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.bfloat16] if DEVICE == "cuda" else [torch.float32]
OTHER = {"num_attention_heads": 6, "num_key_value_heads": 2, "tie_word_embeddings": False}


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Llama:
    """Six query heads, two KV heads, an untied head."""
    path = tmp_path_factory.mktemp("made")
    save_tiny(path, num_hidden_layers=1, **OTHER)
    return Llama.from_pretrained(path).to(DEVICE)


def close(mine: torch.Tensor, exact: torch.Tensor, plain: torch.Tensor) -> None:
    """Float32 within 1e-5 of float64; a narrower dtype no worse than plain torch in it."""
    error = (mine.double() - exact).abs().max().item()
    if mine.dtype == torch.float32:
        assert error <= 1e-5 * (1 + exact.abs().max().item())
    else:
        assert error <= 1.05 * (plain.double() - exact).abs().max().item()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("added", [False, True])
def test_norm(dtype, added):
    x, delta = (torch.randn(3, 40, device=DEVICE, dtype=dtype) * 3 for _ in "xd")
    plain = RMSNorm(40, 1e-3).to(DEVICE, dtype)
    plain.weight.data.uniform_(0.5, 1.5)
    total = x + delta if added else x.clone()
    wide = total.double()
    exact = wide * (wide.pow(2).mean(-1, keepdim=True) + 1e-3).rsqrt() * plain.weight.double()
    mine = rms_norm(x, plain.weight, 1e-3, delta if added else None)
    close(mine, exact, plain(total))
    assert torch.equal(x, total)


@pytest.mark.parametrize("dtype", DTYPES)
def test_silu_mul(dtype):
    x = torch.randn(2, 2 * 1100, device=DEVICE, dtype=dtype) * 4
    gate, up = x.chunk(2, -1)
    wide = gate.double()
    close(silu_mul(x), wide * wide.sigmoid() * up, torch.nn.functional.silu(gate) * up)


SPANS = [(1, 0), (5, 0), (1, 20), (3, 16), (18, 2)]  # new tokens, and those before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("K", "G", "D"), [(1, 1, 16), (2, 3, 20)])
@pytest.mark.parametrize("size", [1, 3, 16])
def test_attention(dtype, K, G, D, size):
    """Prompts, chunks and decode in one row, in a pool that is NaN wherever nobody wrote."""
    torch.manual_seed(size)
    free = torch.randperm(120).tolist()
    keys = torch.full((120 * size, K, D), torch.nan, dtype=dtype, device=DEVICE)
    values, texts = keys.clone(), []
    tables = torch.zeros(len(SPANS), 40, dtype=torch.int32)
    for row, (new, before) in enumerate(SPANS):
        end = new + before
        blocks = [free.pop() for _ in range(-(-end // size))]
        tables[row, : len(blocks)] = torch.tensor(blocks)
        slots = [blocks[p // size] * size + p % size for p in range(end)]
        q, k, v = (
            torch.randn(n, h, D).to(DEVICE, dtype) for n, h in ((new, K * G), (end, K), (end, K))
        )
        keys[slots], values[slots] = k, v
        texts.append([t.transpose(0, 1)[None] for t in (q, k, v)])
    which = reading(tables.to(DEVICE), [(*span, i) for i, span in enumerate(SPANS)], G)
    q = torch.cat([q[0].transpose(0, 1) for q, _, _ in texts])
    plain, exact = (
        torch.cat([causal_attention(*map(to, t))[0].transpose(0, 1).flatten(1) for t in texts])
        for to in (lambda t: t, lambda t: t.double())
    )
    for cut in ((1,), (4, 16), (3,), (3, 0, 16)):
        close(paged_attention(q, keys, values, which, size, *cut), exact, plain)


def test_the_choice_is_the_plain_one():
    scores = torch.randn(6, 9001, device=DEVICE) * 3
    scores[4, 100:] = -torch.inf
    temperatures = [0.0, 0.5, 1.0, 2.0, 0.7, 0.01]
    params = [SamplingParams(temperature=t) for t in temperatures]
    for place in range(3):
        wanted = sample(process(scores, params, [((), ())] * 6), [*range(6)], [place] * 6)
        points = [uniform(seed, place) for seed in range(6)]
        law = torch.tensor([temperatures, points], dtype=torch.float64, device=DEVICE)
        rows, newest = torch.arange(6, device=DEVICE).flip(0), torch.zeros(7, dtype=torch.int64)
        newest = newest.to(DEVICE)
        assert torch.equal(choose(scores, law, rows, newest), wanted)
        assert torch.equal(newest[:6].flip(0), wanted) and not newest[6]


def test_a_fused_model_is_the_model_in_chunks(model):
    ids = torch.randint(97, (23,), device=DEVICE)
    wanted = model.logits(model(ids[None]))[0]
    pool = KVPool(model.config, 12, 4, device=DEVICE)
    pool.k.fill_(torch.nan), pool.v.fill_(torch.nan)
    fused = FusedLlama(model, 64)
    assert torch.equal(model.logits(model(ids[None]))[0], wanted)  # whose weights are parts now
    tables = torch.tensor([[7, 3, 9, 0, 2, 5]], dtype=torch.int32, device=DEVICE)
    done, scores = 0, []
    for new in (1, 13, 9):
        place = torch.arange(done, done + new, device=DEVICE)
        which = reading(tables, [(new, done, 0)], 3)
        scores.append(fused.scores(
            ids[place], place, tables[0, place // 4].long() * 4 + place % 4, pool.k, pool.v,
            lambda q, k, v, which=which: paged_attention(q, k, v, which, 4),
        ))  # fmt: skip
        done += new
    torch.testing.assert_close(torch.cat(scores), wanted, rtol=1e-5, atol=2e-5)


def test_steps_of_many_rows_are_the_model(model):
    """Token by token; a third row is nobody's."""
    texts = torch.randint(97, (2, 5), device=DEVICE)
    wanted = model.logits(model(texts))
    pool = KVPool(model.config, 9, 4, device=DEVICE)
    pool.k.fill_(torch.nan), pool.v.fill_(torch.nan)
    fused, rows = FusedLlama(model, 64), Rows(3, 4, pool)
    rows.tables[:2, :2] = torch.tensor([[5, 1], [7, 0]])
    graphs = DecodeGraphs(fused, pool, rows)
    for place in range(5):
        rows.ids[:2] = texts[:, place]
        graphs.tell([1, 0], [place] * 2, [0.0] * 2, [0.5] * 2)
        scores, ids = graphs.step(3, False)
        assert torch.equal(ids, scores.argmax(-1)) and torch.equal(rows.ids[[1, 0]], ids[:2])
        here = wanted[[1, 0], place]
        torch.testing.assert_close(scores[:2], here, rtol=1e-5, atol=2e-5)


def test_few_texts_are_the_model_and_need_no_memory_too_early():
    board = Scoreboard("Day 25, one token of a few texts")
    check_few(board)
    check_late(board)
    board.verdict()


def test_sizes_of_graphs_reach_every_number():
    for most in (1, 2, 3, 8, 9, 20, 256):
        sizes = sizes_up_to(most)
        assert sizes == sorted({*sizes}) and sizes[-1] == most
        assert all(min(s for s in sizes if s >= n) < n + 8 for n in range(1, most + 1))
