"""What a block wired wrongly and a head without its norm give, so that they can be named: Day 7."""

import torch
from torch import nn

from nanoserve.model import Llama
from nanoserve.signatures import Lookalikes


def block_slips(
    block: nn.Module, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> Lookalikes:
    """Wrong results (B, T, C) of a block given x (B, T, C), from its own four pieces."""

    def attn(x: torch.Tensor) -> torch.Tensor:
        return block.attn(x, cos, sin)

    one, two, mlp = block.attn_norm, block.mlp_norm, block.mlp

    def added() -> torch.Tensor:  # the first half, right
        return x + attn(one(x))

    def from_norms() -> torch.Tensor:
        first = one(x)
        return second_from_norm(first + attn(first))

    def second_from_norm(h: torch.Tensor) -> torch.Tensor:
        return two(h) + mlp(two(h))

    def then(h: torch.Tensor) -> torch.Tensor:  # the second half, right
        return h + mlp(two(h))

    def mlp_first() -> torch.Tensor:
        h = x + mlp(two(x))
        return h + attn(one(h))

    def after() -> torch.Tensor:
        h = one(x + attn(x))
        return two(h + mlp(h))

    def both_from_x() -> torch.Tensor:
        return added() + mlp(two(x))

    def swapped() -> torch.Tensor:
        h = x + attn(two(x))
        return h + mlp(one(h))

    def one_norm() -> torch.Tensor:
        return added() + mlp(one(added()))

    return {
        "its own input: nothing was added to it": x,
        "the block without its MLP half": added,
        "the block without its attention half": lambda: then(x),
        "the block without `x +` before attention": lambda: then(attn(one(x))),
        "the block without `x +` before the MLP": lambda: mlp(two(added())),
        "the block whose first half is added to the norm of x, not to x": lambda: then(
            one(x) + attn(one(x))
        ),
        "the block whose second half is added to the norm, not to what was normed": lambda: (
            second_from_norm(added())
        ),
        "the block whose halves are both added to the norm, not to what was normed": from_norms,
        "the block whose MLP reads x as it was before attention was added": both_from_x,
        "the block with its halves exchanged": mlp_first,
        "the block with its norms exchanged": swapped,
        "the block with its first norm in both places": one_norm,
        "the block without a norm before attention": lambda: then(x + attn(x)),
        "the block without a norm before the MLP": lambda: added() + mlp(added()),
        "the block with its norms after the additions, not before the halves": after,
    }


def head_slips(model: Llama, x: torch.Tensor) -> Lookalikes:
    """Wrong logits (B, T, vocab_size) of the last block's x (B, T, C)."""
    tied = model.config.tie_word_embeddings
    weight = (model.embed if tied else model.lm_head).weight

    def head(h: torch.Tensor, weight: torch.Tensor = weight) -> torch.Tensor:
        return nn.functional.linear(h, weight)

    return {
        "logits without the final norm": lambda: head(x),
        "logits with the final norm taken twice": lambda: head(model.norm(model.norm(x))),
        "logits of the embedding, where the head has a matrix of its own": lambda: head(
            model.norm(x), model.embed.weight
        ),
    }
