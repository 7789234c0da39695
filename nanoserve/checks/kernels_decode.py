"""The kernels of one token, each against HuggingFace's own modules: Day 25."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from nanoserve.checks.caching import by_largest
from nanoserve.checks.common import F32, attempt, holds
from nanoserve.checks.kernels_decode_made import DEVICE, fence_stands, fenced, heads, made
from nanoserve.checks.model_loading import load
from nanoserve.comparison import Scoreboard
from nanoserve.config import ModelConfig
from nanoserve.kernels import decode
from nanoserve.kernels.launch import early
from nanoserve.layers import TransformerBlock, rope_table
from nanoserve.reference import our_name, transformers

SIZE, BLOCKS = 4, 6  # of a page, and how many there are
PLACES, ROWS = (9, 2), (1, 0)  # of two texts: the newest token's place, and the row of its table
modeling = transformers.models.llama.modeling_llama


def normal(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    """Seeded numbers, the same on every device."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (scale * drawn).to(DEVICE)


def hold(board: Scoreboard, path: Path | None, what: str, name: str, mine, wanted) -> None:
    """Within 1e-5; on a checkpoint, where sums cancel, within 1e-5 of the largest value."""
    holds(f"{name}: nothing is written past its end: look at the store's mask", fence_stands(mine))
    whole = not mine.isnan().any().item()
    holds(f"{name}: no NaN. Behind each tensor lies NaN, that masked loads do not see", whole)
    if path is None:
        board.compare(None, what, name, mine, wanted)
    else:
        by_largest(board, path, what, name, mine, wanted, wanted.abs().max())


class Part:
    """HuggingFace's layer, and as many of its rows as our kernels are asked for.

    A row of a matrix is computed alone, so a few heads and rows say it of all.
    """

    def __init__(self, config: ModelConfig, block: TransformerBlock, H: int, K: int, rows: int):
        self.config, self.H, self.K, self.rows = config, H, K, rows
        wanted = transformers.LlamaConfig(**config_of(config))
        wanted._attn_implementation = "eager"
        with torch.device("meta"):
            self.layer = modeling.LlamaDecoderLayer(wanted, 0)
        ours = dict(block.named_parameters())
        held = {name: ours[our_name(name)] for name, _ in self.layer.named_parameters()}
        self.layer.load_state_dict(held, assign=True)
        self.rotary = modeling.LlamaRotaryEmbedding(wanted).to(DEVICE)
        self.x = normal(2, config.hidden_size, seed=1)

    def fused(self, *counted: tuple[nn.Module, int]) -> torch.Tensor:
        """The first rows of several matrices, one below another."""
        return fenced(torch.cat([layer.weight[:n] for layer, n in counted]))


def config_of(config: ModelConfig) -> dict[str, Any]:
    """What HuggingFace's layer is made of."""
    names = (
        "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
        "head_dim", "rms_norm_eps", "max_position_embeddings",
    )  # fmt: skip
    made = {name: getattr(config, name) for name in names}
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling is not None:
        rope |= {"rope_type": "llama3"} | vars(config.rope_scaling)
    return made | {"rope_parameters": rope, "pad_token_id": None}


def launch(what: str, kernel: Any, programs: int, *given: Any, warps: int = 4) -> None:
    """Run a kernel as the step does."""
    attempt(what, lambda: kernel[(programs,)](*given, num_warps=warps, **early()))


def qkv(part: Part, spans: torch.Tensor, tables: torch.Tensor) -> dict[str, torch.Tensor]:
    """By our kernel: q (2, H, D), and a pool's keys and values, NaN where nobody wrote."""
    c, (H, K), attn = part.config, (part.H, part.K), part.layer.self_attn
    D, C = c.head_dim, c.hidden_size
    half = D // 2
    q = torch.full((2, H, D), torch.nan, device=DEVICE)
    k, v = (torch.full((BLOCKS * SIZE, K, D), torch.nan, device=DEVICE) for _ in "kv")
    weight = part.fused((attn.q_proj, H * D), (attn.k_proj, K * D), (attn.v_proj, K * D))
    cos, sin = rope_table(c, torch.arange(max(PLACES) + 1, device=DEVICE))
    cos, sin = (t[:, :half].contiguous() for t in (cos, sin))
    P = decode.pairs(D)
    launch(
        "qkv_kernel", decode.qkv_kernel, (H + 2 * K) * (half // P),
        fenced(part.x), fenced(part.layer.input_layernorm.weight), weight, cos, sin, spans, tables,
        q, k, v, c.rms_norm_eps, spans.stride(0), tables.stride(0),
        2, C, decode.power(C), H, K, D, P, SIZE,
    )  # fmt: skip
    return {"q": q, "k": k, "v": v}


def their_qkv(part: Part) -> dict[str, torch.Tensor]:
    """By HuggingFace's modules: each (2, heads, D)."""
    attn, D = part.layer.self_attn, part.config.head_dim
    h = part.layer.input_layernorm(part.x)[:, None]
    q, k, v = (
        p(h).view(2, 1, -1, D).transpose(1, 2) for p in (attn.q_proj, attn.k_proj, attn.v_proj)
    )
    cos, sin = part.rotary(h, torch.tensor(PLACES, device=DEVICE)[:, None])
    q, k = modeling.apply_rotary_pos_emb(q, k, cos, sin)
    return {"q": q[:, : part.H, 0], "k": k[:, : part.K, 0], "v": v[:, : part.K, 0]}


@torch.inference_mode()
def check_qkv(board: Scoreboard, path: Path | None, part: Part) -> None:
    """q, k and v of two texts, each at its own place, in its own page and no other slot."""
    spans = torch.tensor([[0, 1], [1, 1], PLACES, ROWS], dtype=torch.int32, device=DEVICE)
    tables = torch.tensor([[3, 0, 5], [2, 4, 1]], dtype=torch.int32, device=DEVICE)
    mine, wanted = qkv(part, spans, tables), their_qkv(part)
    slots = [int(tables[r, p // SIZE]) * SIZE + p % SIZE for p, r in zip(PLACES, ROWS, strict=True)]
    hold(board, path, "q, k and v, by one kernel", "q", mine["q"], wanted["q"])
    for name in "kv":
        others = [i for i in range(BLOCKS * SIZE) if i not in slots]
        untouched = bool(mine[name][others].isnan().all())
        holds(f"{name}: the kernel must write the slots {slots} and no others", untouched)
        held = mine[name][slots]
        hold(board, path, "q, k and v, by one kernel", name, held, wanted[name])


@torch.inference_mode()
def check_products(board: Scoreboard, path: Path | None, part: Part) -> None:
    """x += o_proj(a), silu(gate) * up, x += down_proj(a), each with all that is fused to it."""
    layer, rows, C = part.layer, part.rows, part.config.hidden_size
    for name, matrix, R, warps in (
        ("o_proj", layer.self_attn.o_proj, 8, 4),
        ("down_proj", layer.mlp.down_proj, 4, 8),
    ):
        few, N = min(rows, C), matrix.weight.shape[1]
        a, x = fenced(normal(2, N, seed=2)), fenced(part.x[:, :few])
        wanted = x + matrix(a)[:, :few]
        launch(
            f"add_kernel with {name}", decode.add_kernel, -(-few // R),
            a, fenced(matrix.weight[:few]), x, 2, N, decode.power(N), few, R, warps=warps,
        )  # fmt: skip
        hold(board, path, "x + product, by one kernel", name, x, wanted)
    mlp, few = layer.mlp, min(rows, part.config.intermediate_size)
    out = fenced(torch.full((2, few), torch.nan))
    launch(
        "gate_up_kernel", decode.gate_up_kernel, -(-few // 2),
        fenced(part.x), fenced(layer.post_attention_layernorm.weight),
        part.fused((mlp.gate_proj, few), (mlp.up_proj, few)), out, part.config.rms_norm_eps,
        2, C, decode.power(C), few, 2,
    )  # fmt: skip
    h = layer.post_attention_layernorm(part.x)
    wanted = (mlp.act_fn(mlp.gate_proj(h)) * mlp.up_proj(h))[:, :few]
    hold(board, path, "silu(gate) * up, by one kernel", "mlp", out, wanted)


@torch.inference_mode()
def check_ends(board: Scoreboard, path: Path | None, part: Part, table, gain, head) -> None:
    """The embedding of each text's newest token, and the scores of some tokens."""
    C, V, eps = part.config.hidden_size, min(part.rows - 3, len(head)), part.config.rms_norm_eps
    newest = torch.tensor([7, 3, 5], device=DEVICE)
    spans = torch.tensor([[0, 1], [1, 1], PLACES, ROWS], dtype=torch.int32, device=DEVICE)
    x = fenced(torch.full((2, C), torch.nan))
    launch("begin_kernel", decode.begin_kernel, 2, spans, 2, newest, table, x, C, decode.power(C))
    holds("begin_kernel writes nothing past x: look at the store's mask", fence_stands(x))
    board.compare(path, "the newest token's vector", "x", x, table[newest[[*ROWS]]], rtol=0, atol=0)
    norm = modeling.LlamaRMSNorm(C, eps).to(DEVICE)
    norm.weight.copy_(gain)
    out = fenced(torch.full((2, V), torch.nan))
    launch(
        "head_kernel", decode.head_kernel, -(-V // 4),
        fenced(part.x), fenced(gain), fenced(head[:V]), out, eps, V, 2, C, decode.power(C), 4,
    )  # fmt: skip
    wanted = nn.functional.linear(norm(part.x), head[:V])
    hold(board, path, "norm and head, by one kernel", "scores", out, wanted)


def check_block(board: Scoreboard, path: Path) -> None:
    """A checkpoint's first block at its full widths: some heads, and some rows of each matrix."""
    model = load(path, num_blocks=1).to(DEVICE, F32)
    part = Part(model.config, model.blocks[0], 2, 1, 20)
    table, tied = model.embed.weight, model.config.tie_word_embeddings
    part.x = table[[7, 11]].clone()
    for check in (check_qkv, check_products):
        check(board, path, part)
    check_ends(board, path, part, table, model.norm.weight, table if tied else model.lm_head.weight)


def check_kernels(board: Scoreboard) -> None:
    """A made model's first block, all of it: widths that are no powers of 2, an untied head."""
    _, model = made(heads(4, 2, 12, tied=False))
    c = model.config
    part = Part(c, model.blocks[0], c.num_attention_heads, c.num_key_value_heads, 99)
    for check in (check_qkv, check_products):
        check(board, None, part)
    check_ends(board, None, part, model.embed.weight, model.norm.weight, model.lm_head.weight)
