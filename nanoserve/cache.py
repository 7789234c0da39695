"""Keys and values of the tokens read so far.

Built in the book: day10. Edit there, then run book/tangle.py.
"""

from collections.abc import Callable
from functools import partial

import torch

from nanoserve.config import ModelConfig
from nanoserve.layers import causal_attention


def attend_to_all(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """causal_attention for one query, the last: nothing to hide from it.

    Shapes: q (B, H, 1, D); k, v (B, K, S, D) -> (B, H, 1, D). Without
    the mask it takes half the operations, and gives the same bits.
    """
    B, H, _, D = q.shape
    groups = q.view(B, k.shape[1], -1, D)  # (B, K, H / K, D)
    scores = groups @ k.transpose(-2, -1)  # (B, K, H / K, S)
    scores *= D**-0.5
    weights = scores.softmax(-1, dtype=torch.float32).to(v.dtype)
    return (weights @ v).view(B, H, 1, -1)


class KVCache:
    """Keys and values of `batch` texts of equal length, for all layers.

    Room for `max_len` tokens is taken at once. `attends` gives each
    layer an `attend` that writes its new keys and values behind the
    `length` tokens that are there, and attends to all of them. Only
    `advance` makes them count: the layers of one pass all see the same
    length. k and v are (layers, B, K, max_len, D).
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        max_len: int,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ):
        layers, K = config.num_hidden_layers, config.num_key_value_heads
        shape = (layers, batch, K, max_len, config.head_dim)
        self.k = torch.empty(shape, dtype=dtype, device=device)
        self.v = torch.empty(shape, dtype=dtype, device=device)

        self.batch, self.max_len, self.length = batch, max_len, 0

    def attends(self) -> list[Callable[..., torch.Tensor]]:
        """An `attend` for each layer, good for the next pass."""
        return [partial(self.attend, i) for i in range(len(self.k))]

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Write k and v (B, K, T, D) behind the rest; mix for q."""
        start, end = self.length, self.length + k.shape[2]
        if end > self.max_len or len(k) != self.batch:
            raise ValueError(
                f"{len(k)} texts of {end} tokens do not fit into a cache "
                f"for {self.batch} of {self.max_len}"
            )
        self.k[layer, :, :, start:end] = k
        self.v[layer, :, :, start:end] = v
        past = self.k[layer, :, :, :end], self.v[layer, :, :, :end]
        attend = attend_to_all if end == start + 1 else causal_attention
        return attend(q, *past)  # (B, H, T, D)

    def advance(self, n: int) -> None:
        """Count n more tokens, when all layers have written them."""
        if not 0 <= n <= self.max_len - self.length:
            raise ValueError(
                f"cannot advance by {n}: {self.length} of {self.max_len} places are taken"
            )
        self.length += n

    def truncate(self, n: int) -> None:
        """Keep the first n tokens only; what comes next overwrites."""
        if not 0 <= n <= self.length:
            raise ValueError(f"cannot keep {n} of {self.length} tokens")
        self.length = n

    @property
    def nbytes(self) -> int:
        """Bytes of memory, used or not."""
        return self.k.nbytes + self.v.nbytes
