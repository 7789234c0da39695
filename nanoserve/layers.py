"""The pieces of a transformer block.

Built in the book: day04, day05, day06, day07. Edit there, then run book/tangle.py.
"""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from nanoserve.config import ModelConfig


class RMSNorm(nn.Module):
    """Scale each token's vector to root mean square 1, then apply a gain.

    Shapes: (..., C) -> (..., C). Statistics are taken in float32
    whatever the input's dtype; the result goes back to that dtype
    before the gain, as in the reference. Source: Zhang and Sennrich
    2019, arXiv:1910.07467, equation 4.
    """

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps  # inside the root, so a zero vector stays finite

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.float()
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * h.to(x.dtype)


def rope_inverse_frequencies(config: ModelConfig) -> torch.Tensor:
    """The angle that each pair turns per token, in radians: (D/2,).

    With `rope_scaling`, pairs that finish fewer than `low_freq_factor`
    turns in the original context are slowed by `factor`, those with
    more than `high_freq_factor` are left alone, and those between are
    blended. Source: Su et al. 2021, arXiv:2104.09864, section 3.2; the
    scaling is Llama 3.1's.
    """
    pairs = torch.arange(0, config.head_dim, 2, device="cpu")
    exponent = pairs.to(torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponent
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_max_position_embeddings / (2 * math.pi / frequencies)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


def rope_table(config: ModelConfig, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of every pair's angle at every position.

    Shapes: (..., T) -> two of (..., T, D), in float32.
    `positions` is any integer tensor (T,) or (B, T): it need not start
    at 0 or be the same in each row. The D/2 angles stand there twice,
    once for each half of the head. Raises TypeError for other dtypes.
    """
    kind = positions.dtype
    if kind.is_floating_point or kind.is_complex or kind == torch.bool:
        raise TypeError(f"positions must be integers, got {kind}")
    frequencies = rope_inverse_frequencies(config).to(positions.device)
    angles = positions[..., None].float() * frequencies  # (..., T, D/2)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], -1), torch.cat([sin, sin], -1)


def apply_rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the pairs (i, i + D/2) of each head by its position's angles.

    Shapes: x (B, H, T, D); cos and sin (T, D) or (B, T, D) -> (B, H, T,
    D), in x's dtype, to which cos and sin are cast first, as in the
    reference.
    """
    cos, sin = (t.unsqueeze(-3).to(x.dtype) for t in (cos, sin))  # (..., 1, T, D)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], -1) * sin


class Linear(nn.Linear):
    """A matrix product without a bias.

    Shapes: (..., in_features) -> (..., out_features). Its weight, of
    shape (out_features, in_features), starts as whatever is in memory:
    the values come from a checkpoint, and drawing random ones first
    takes longer than loading.
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        """Draw nothing."""


class SwiGLU(nn.Module):
    """The gated MLP: silu(gate(x)) decides how much of up(x) goes down.

    Shapes: (..., C) -> (..., C), through F = intermediate_size
    channels. No biases. Source: Shazeer 2020, arXiv:2002.05202,
    equation 6.
    """

    def __init__(self, hidden_size: int, intermediate_size: int):
        super().__init__()
        self.gate_proj = Linear(hidden_size, intermediate_size)
        self.up_proj = Linear(hidden_size, intermediate_size)
        self.down_proj = Linear(intermediate_size, hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # (..., F) -> (..., C)


def check_attention_shapes(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Raise ValueError unless causal_attention can take q, k and v."""
    if q.dim() == k.dim() == v.dim() == 4:
        (B, H, T, D), (K, S) = q.shape, k.shape[1:3]
        fits = k.shape == (B, K, S, D) and v.shape[:3] == (B, K, S)
        if fits and K and H % K == 0 and S >= T:
            return
    raise ValueError(
        f"q {[*q.shape]}, k {[*k.shape]}, v {[*v.shape]} do not fit: "
        "q must be (B, H, T, D), k (B, K, S, D), v (B, K, S, any), "
        "with K a divisor of H and S >= T"
    )


def causal_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Each query's weighted mix of the values up to its own position.

    Shapes: q (B, H, T, D); k (B, K, S, D) and v (B, K, S, V) -> (B, H,
    T, V). K divides H, and query head h reads KV head h // (H / K). The
    queries are the last T of S positions. The softmax is taken in
    float32. Raises ValueError where the shapes do not fit. Source:
    Vaswani et al. 2017, arXiv:1706.03762; Ainslie et al. 2023,
    arXiv:2305.13245.
    """
    check_attention_shapes(q, k, v)
    (B, H, T, D), (K, S) = q.shape, k.shape[1:3]
    # A KV head's queries in one matrix: k and v need not be repeated.
    q = q.reshape(B, K, H // K * T, D)
    scores = (q @ k.transpose(-2, -1)).view(B, H, T, S)
    # In place: at T = 2048 a copy of the scores is half a gigabyte.
    scores *= D**-0.5
    # Query t stands at S - T + t: right of that is its future. Added, not
    # filled in: masked_fill_ is slow where the mask broadcasts.
    scores += scores.new_full((T, S), -torch.inf).triu_(S - T + 1)
    weights = scores.softmax(-1, dtype=torch.float32).to(v.dtype)
    mix = weights.view(B, K, H // K * T, S) @ v  # (B, K, H // K * T, V)
    return mix.view(B, H, T, v.shape[-1])


class Attention(nn.Module):
    """Grouped-query self-attention: H query heads share K KV heads.

    Shapes: x (B, T, C); cos and sin (T, D) or (B, T, D) -> (B, T, C).
    `attend` gets q and k after RoPE, and v, and returns the mix, (B, H,
    T, D): it is the seam for caches and kernels.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.head_dim = config.head_dim
        q_size = config.num_attention_heads * config.head_dim
        kv_size = config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, q_size)
        self.k_proj = Linear(config.hidden_size, kv_size)
        self.v_proj = Linear(config.hidden_size, kv_size)
        self.o_proj = Linear(q_size, config.hidden_size)

    def forward(
        self,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        attend: Callable[..., torch.Tensor] = causal_attention,
    ) -> torch.Tensor:
        heads = (*x.shape[:2], -1, self.head_dim)
        q = self.q_proj(x).view(heads).transpose(1, 2)  # (B, H, T, D)
        k = self.k_proj(x).view(heads).transpose(1, 2)  # (B, K, T, D)
        v = self.v_proj(x).view(heads).transpose(1, 2)  # (B, K, T, D)
        q, k = apply_rope(q, cos, sin), apply_rope(k, cos, sin)
        mix = attend(q, k, v)  # (B, H, T, D)
        mix = mix.transpose(1, 2).flatten(2)  # (B, T, H * D)
        return self.o_proj(mix)  # (B, T, C)


class TransformerBlock(nn.Module):
    """One layer: x = x + attn(norm(x)), then x = x + mlp(norm(x)).

    Shapes: x (B, T, C); cos and sin (T, D) or (B, T, D) -> (B, T, C).
    `attend` is handed to Attention.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attn = Attention(config)
        self.mlp_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)

    def forward(
        self,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        attend: Callable[..., torch.Tensor] = causal_attention,
    ) -> torch.Tensor:
        x = x + self.attn(self.attn_norm(x), cos, sin, attend)
        return x + self.mlp(self.mlp_norm(x))
