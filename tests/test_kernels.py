"""Every kernel against plain torch: by Triton's interpreter where there is no GPU, else on it.

Skipped where there is no Triton.
"""

import pytest
import torch

import nanoserve.kernels  # noqa: F401, which finds Triton

pytest.importorskip("triton")

from tiny import save_tiny

from nanoserve.checks.kernels_attention import MIXED, lengths
from nanoserve.checks.kernels_few import check_few
from nanoserve.checks.kernels_late import check_late
from nanoserve.checks.kernels_row import Row, drawn, exactly
from nanoserve.checks.kernels_small import check_gates, check_norms, check_turns
from nanoserve.checks.law import lawful
from nanoserve.comparison import Scoreboard
from nanoserve.engine.pool import KVPool
from nanoserve.kernels.attention import Reading, paged_attention, reading
from nanoserve.kernels.choice import choose
from nanoserve.kernels.fused import FusedLlama
from nanoserve.kernels.graphs import DecodeGraphs, Rows, sizes_up_to
from nanoserve.layers import causal_attention
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


def test_small_kernels():
    """As Day 22 has them; on a GPU in bf16 too."""
    board = Scoreboard("the small kernels")
    check_norms(board), check_gates(board), check_turns(board)


def test_the_law():
    exact = torch.linspace(-3, 3, 4096 * 4, dtype=torch.float64).view(4096, 4)
    plain = exact.bfloat16()
    assert lawful(plain, plain, exact) and lawful(exact, plain, exact)
    assert lawful(exact.float(), plain, exact)
    bad_row, worse, gone = plain.clone(), exact.bfloat16() * 1.0, plain.clone()
    bad_row[7] *= 1.5
    worse[:2048] = (exact[:2048] * 1.002).bfloat16()
    gone[0, 0] = torch.nan
    for mine in (bad_row, worse, gone):
        assert not lawful(mine, plain, exact)
    off = (worse.double() - exact).abs().max() / (plain.double() - exact).abs().max()
    small = worse.clone()
    small[exact.abs() > 2] = plain[exact.abs() > 2]  # the largest error is as it was
    assert off > 1.05 and not lawful(small, plain, exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("K", "G", "D"), [(1, 1, 16), (2, 3, 20), (1, 8, 64), (2, 4, 128)])
@pytest.mark.parametrize("size", [1, 3, 16])
def test_attention(dtype, K, G, D, size):
    """Prompts, chunks and decode in one row, in a pool that is NaN wherever nobody wrote."""
    drawn_ones = drawn(MIXED, K, G, D, seed=size)
    texts = [[x.to(dtype).float() for x in text] for text in drawn_ones]
    row = Row(texts, size, dtype)
    exact = exactly(texts)
    for cut in ((1,), (3, 0, 16)) if K * G < 8 or DEVICE == "cuda" else ((1,),):
        close(row.mix(row.reading(), row.q, *cut), exact, row.pools)


@pytest.mark.parametrize("cut", [(1, 0, 16), (3, 0, 16), (7, 12, 16)])
def test_attention_at_every_length(cut):
    Row(drawn(lengths(*range(1, 67)), 1, 1, 16, seed=0), 5).hold(Scoreboard("lengths"), "", *cut)


def test_a_reading_lies_row_by_row_and_rows_of_one_number_anyhow():
    spans, tiles = torch.zeros(2, 4, 3, dtype=torch.int32), torch.zeros(1, 2, dtype=torch.int32)
    for width in (0, 1):
        Reading(spans[0, :, ::2][:, :width], spans[0], tiles, 1)
    for wrong in (spans[0, :, ::2], spans[0].T, spans[0].long()):
        with pytest.raises(ValueError, match="tables must be int32 and lie row by row"):
            Reading(wrong, spans[1], tiles, 1)


@pytest.mark.skipif(DEVICE == "cpu", reason="a pool of 4 GB")
def test_attention_far_into_a_large_pool():
    """More than 2^31 numbers before the text's own."""
    K, D, size, count = 8, 64, 16, 2**18 + 5
    keys, values = (
        torch.full((count * size, K, D), torch.nan, dtype=torch.bfloat16, device=DEVICE)
        for _ in "kv"
    )
    for held in (keys, values):
        held[-32:] = torch.randn(32, K, D)
    tables = torch.tensor([[count - 2, count - 1]], dtype=torch.int32, device=DEVICE)
    q = torch.randn(1, K, D, device=DEVICE, dtype=torch.bfloat16)
    mine = paged_attention(q, keys, values, reading(tables, [(1, 31, 0)], 1), size)
    past = (x[-32:].transpose(0, 1)[None] for x in (keys, values))
    wanted = causal_attention(q.transpose(0, 1)[None], *past).flatten()[None]
    torch.testing.assert_close(mine, wanted, rtol=0.02, atol=0.02)


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
