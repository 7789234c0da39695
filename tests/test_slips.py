"""Slips that readers make are named by the judge: in one sentence, and no other lead is given."""

import pytest
import torch
from tiny import save_tiny

from nanoserve.checks.attention import check_mix, draw
from nanoserve.checks.attention_mistakes import head_mistakes
from nanoserve.checks.block_slips import head_slips
from nanoserve.checks.blocks import check_blocks
from nanoserve.checks.rope_slips import made, speed_slips, table_slips
from nanoserve.comparison import Scoreboard
from nanoserve.layers import TransformerBlock, apply_rope
from nanoserve.model import Llama
from nanoserve.reference import Reference

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
WIRED = {
    "nothing was added": "x",
    "without its MLP half": "x + b.attn(b.attn_norm(x), *t)",
    "without its attention half": "x + b.mlp(b.mlp_norm(x))",
    "without `x +` before attention": "(h := b.attn(b.attn_norm(x), *t)) + b.mlp(b.mlp_norm(h))",
    "without `x +` before the MLP": "b.mlp(b.mlp_norm(x + b.attn(b.attn_norm(x), *t)))",
    "first half is added to the norm": (
        "(h := (n := b.attn_norm(x)) + b.attn(n, *t)) + b.mlp(b.mlp_norm(h))"
    ),
    "second half is added to the norm": (
        "(h := b.mlp_norm(x + b.attn(b.attn_norm(x), *t))) + b.mlp(h)"
    ),
    "halves are both added to the norm": (
        "(h := b.mlp_norm((n := b.attn_norm(x)) + b.attn(n, *t))) + b.mlp(h)"
    ),
    "MLP reads x as it was": "x + b.attn(b.attn_norm(x), *t) + b.mlp(b.mlp_norm(x))",
    "with its halves exchanged": ("(h := x + b.mlp(b.mlp_norm(x))) + b.attn(b.attn_norm(h), *t)"),
    "with its norms exchanged": "(h := x + b.attn(b.mlp_norm(x), *t)) + b.mlp(b.attn_norm(h))",
    "first norm in both places": "(h := x + b.attn(b.attn_norm(x), *t)) + b.mlp(b.attn_norm(h))",
    "without a norm before attention": "(h := x + b.attn(x, *t)) + b.mlp(b.mlp_norm(h))",
    "without a norm before the MLP": "(h := x + b.attn(b.attn_norm(x), *t)) + b.mlp(h)",
    "norms after the additions": "b.mlp_norm((h := b.attn_norm(x + b.attn(x, *t))) + b.mlp(h))",
}


@pytest.fixture(scope="module")
def ref(tmp_path_factory):
    path = tmp_path_factory.mktemp("slips") / "tiny"
    save_tiny(path, rope_parameters=LLAMA3)
    return Reference(path)


@pytest.fixture(scope="module")
def model(ref):
    return Llama.from_pretrained(ref.path)


def said(act, *inputs, **named) -> str:
    with pytest.raises(AssertionError, match="Mine equals") as error:
        act(*inputs, **named)
    assert "Looks like" not in str(error.value)
    return str(error.value).split("Mine equals ")[1]


@pytest.mark.parametrize("phrase", WIRED)
def test_a_block_wired_wrongly(phrase, ref, model, monkeypatch):
    wrong = eval(f"lambda b, x, *t: {WIRED[phrase]}")
    monkeypatch.setattr(TransformerBlock, "forward", wrong)
    assert phrase in said(check_blocks, Scoreboard("wired"), ref, model)


@torch.inference_mode()
def test_a_head_without_its_norm(ref, model):
    x, head = ref.outputs["blocks.1"], model.embed.weight
    right = ref.outputs["logits"]
    for phrase, state in ("without the final", x), ("taken twice", model.norm(model.norm(x))):
        slips = head_slips(model, x)
        hold = Scoreboard("head").compare
        assert phrase in said(hold, None, "head", "it", state @ head.T, right, slips)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("what", "phrase", "make"),
    [
        ("q", "mixes tokens", lambda flat, B, T, D, *t: apply_rope(flat.view(B, -1, T, D), *t)),
        ("v", "mixes tokens", lambda flat, B, T, D, *t: flat.view(B, -1, T, D)),
        ("v", "were turned", lambda flat, B, T, D, *t: apply_rope(cut(flat, D), *t)),
        ("k", "not turned", lambda flat, B, T, D, *t: cut(flat, D)),
    ],
)
def test_heads_cut_or_turned_wrongly(what, phrase, make, ref, model):
    name, attn = "blocks.0.attn", model.blocks[0].attn
    x, table = ref.inputs[name], (ref.outputs["cos"], ref.outputs["sin"])
    mine = make(getattr(attn, f"{what}_proj")(x), *x.shape[:2], attn.head_dim, *table)
    slips = head_mistakes(attn, what, x, *table)
    hold = Scoreboard("heads").compare
    assert phrase in said(hold, ref, "heads", f"{name}.{what}", mine, lookalikes=slips)


def cut(flat, D):
    return flat.unflatten(-1, (-1, D)).transpose(1, 2)


def test_speeds_and_tables(ref):
    hold, wanted = Scoreboard("speeds").compare, ref.outputs["inverse_frequencies"]
    assert torch.equal(made(ref.rotary), wanted)
    slipped = made(ref.rotary, clamp=False)
    assert "without the clamp" in said(
        hold, None, "w", "w", slipped, wanted, speed_slips(ref.rotary)
    )
    far = torch.arange(8) + 9_999_991
    angles = far[:, None].float() * made(ref.rotary, flipped=True)
    table, full = ref.rotary(torch.empty(0), far[None]), torch.cat([angles, angles], -1)
    for which, mine in enumerate((full.cos(), full.sin())):
        slips = table_slips(ref.rotary, far, which)
        assert "theta**-x" in said(hold, None, "table", "it", mine, table[which][0], slips)


def test_a_mask_that_a_score_passes(monkeypatch):
    def low(q, k, v):
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
        mask = q.new_full((q.shape[2], k.shape[2]), -1e4).triu(k.shape[2] - q.shape[2] + 1)
        scores = q @ k.mT * q.shape[-1] ** -0.5 + mask
        return scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v

    monkeypatch.setattr("nanoserve.checks.attention.causal_attention", low)
    seeded = torch.Generator().manual_seed(0)
    q, k, v = draw(seeded, (2, 24, 24), (8, 2, 6, 9), torch.float64)
    assert "a mask of -1e4" in said(check_mix, Scoreboard("mask"), "huge", q * 9000, k, v)
