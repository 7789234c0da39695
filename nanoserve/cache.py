"""Keys and values of the tokens read so far.

Built in the book: day10. Edit there, then run book/tangle.py.
"""

from collections.abc import Callable
from functools import partial

import torch

from nanoserve.config import ModelConfig
from nanoserve.layers import causal_attention


def check_new(held: torch.Tensor, length: int, k: torch.Tensor, v: torch.Tensor) -> None:
    """ValueError unless k and v (B, K, T, D) fit behind `length` tokens.

    `held` is a layer's memory, (B, K, max_len, D).
    """
    B, K, max_len, D = held.shape
    T, free = k.shape[2], max_len - length
    if free < T:
        raise ValueError(
            f"{T} new tokens, and {free} of the cache's {max_len} places "
            "are free: make it with a larger max_len, or truncate it"
        )
    kind = held.dtype, held.device
    for new in (k, v):
        if new.shape != (B, K, T, D) or (new.dtype, new.device) != kind:
            raise ValueError(
                f"keys or values {[*new.shape]} in {new.dtype} on "
                f"{new.device}, wanted {[B, K, T, D]} in {kind[0]} on "
                f"{kind[1]}: the cache needs the model's config, dtype "
                "and device, and a row for each text"
            )


class KVCache:
    """Keys and values of `batch` texts of equal length, in all layers.

    Memory for `max_len` tokens is taken at once: k and v are (layers, B,
    K, max_len, D), and no part of autograd. The `attend` of a layer
    writes new keys and values behind the first `length`; `advance` makes
    them count when all layers have, so that a pass which fails half way
    changes nothing. ValueError for what does not fit.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        max_len: int,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ):
        if batch < 1 or max_len < 1:
            asked = f"batch {batch} and max_len {max_len}"
            raise ValueError(f"{asked} must both be 1 or more")
        layers, K = config.num_hidden_layers, config.num_key_value_heads
        shape = (layers, batch, K, max_len, config.head_dim)
        # Tensors made in inference mode could not be written to outside.
        with torch.inference_mode(False):
            self.k = torch.empty(shape, dtype=dtype, device=device)
            self.v = torch.empty_like(self.k)
        self.max_len, self.length = max_len, 0

    def attends(self) -> list[Callable[..., torch.Tensor]]:
        """An `attend` for each layer, as `Llama` takes them."""
        return [partial(self.attend, i) for i in range(len(self.k))]

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Write k and v (B, K, T, D), mix for q: (B, H, T, D)."""
        keys, values = self.k[layer], self.v[layer]  # (B, K, max_len, D)
        check_new(keys, self.length, k, v)
        end = self.length + k.shape[2]
        keys[:, :, self.length : end] = k.detach()
        values[:, :, self.length : end] = v.detach()
        return causal_attention(q, keys[:, :, :end], values[:, :, :end])

    def advance(self, n: int) -> None:
        """Count n more tokens, which all layers have written."""
        free = self.max_len - self.length
        if n not in range(free + 1):
            raise ValueError(f"cannot advance by {n}: {free} places free")
        self.length += n

    def truncate(self, n: int) -> None:
        """Keep the first n tokens; what comes next overwrites the rest."""
        if n not in range(self.length + 1):
            raise ValueError(f"cannot keep {n} tokens of {self.length}")
        self.length = n

    @property
    def nbytes(self) -> int:
        """Bytes of memory, used or not."""
        return self.k.nbytes + self.v.nbytes
