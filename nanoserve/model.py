"""The Llama: an embedding, the blocks, the final norm and the head.

Built in the book: day07. Edit there, then run book/tangle.py.
"""

from collections.abc import Callable, Iterator, Sequence
from os import PathLike

import torch
from torch import nn

from nanoserve.config import ModelConfig
from nanoserve.layers import Linear, RMSNorm, TransformerBlock, causal_attention, rope_table
from nanoserve.loader import load_weights, refuse_other_sizes


class Llama(nn.Module):
    """A Llama-architecture model: embedding, blocks, final norm, head.

    A tied head is the embedding itself and has no parameter; an untied
    one is `lm_head`. Ids (B, T) to scores (B, T, vocab_size):
    `model.logits(model(ids))`. ValueError for more blocks than the
    config has. Source: Touvron et al. 2023,
    arXiv:2302.13971; Grattafiori et al. 2024, arXiv:2407.21783.
    """

    # Of the head. A seam, as `attend` is: a model may be given another.
    product = staticmethod(nn.functional.linear)

    def __init__(self, config: ModelConfig, num_blocks: int | None = None):
        super().__init__()
        if num_blocks is None:
            num_blocks = config.num_hidden_layers
        if not 0 <= num_blocks <= config.num_hidden_layers:
            layers = config.num_hidden_layers
            raise ValueError(f"num_blocks is {num_blocks}, of {layers} layers")
        self.config = config
        # Left empty, as Linear is: the values come from a file.
        table = torch.empty(config.vocab_size, config.hidden_size)
        self.embed = nn.Embedding.from_pretrained(table, freeze=False)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(num_blocks))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size)

    @classmethod
    def from_pretrained(
        cls,
        path: str | PathLike,
        num_blocks: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> "Llama":
        """The checkpoint in folder `path`, on the CPU, for inference.

        With `num_blocks`, only the first so many blocks are made and
        read from the files. Raises ConfigError or CheckpointError,
        and TypeError, which names it, for a `dtype` that is none of
        torch's floating ones.
        """
        if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(
                f"dtype is {dtype!r}: wanted one of torch's, of floats, such as torch.float16"
            )
        config = ModelConfig.from_pretrained(path)
        refuse_other_sizes(config, path)
        with torch.device("cpu"):  # whatever the default is
            model = cls(config, num_blocks).to(dtype)
        load_weights(model, path)
        return model.requires_grad_(False).eval()

    def stream(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor | None = None,
        attends: Sequence[Callable[..., torch.Tensor]] | None = None,
    ) -> Iterator[torch.Tensor]:
        """The embedding, then each block's output: each (B, T, C).

        `input_ids` is (B, T), integers; `positions` is (T,), (1, T) or
        (B, T) and counts from 0 if not given. `attends` holds an
        `attend` for each block, as Attention takes it. ValueError for
        another number of either.
        """
        B, T = input_ids.shape
        if positions is None:
            positions = torch.arange(T, device=input_ids.device)
        if positions.shape not in ((T,), (1, T), (B, T)):
            raise ValueError(
                f"positions {[*positions.shape]} for ids {[B, T]}: wanted {[T]} or {[B, T]}"
            )
        if attends is None:
            attends = [causal_attention] * len(self.blocks)
        if len(attends) != len(self.blocks):
            raise ValueError(f"{len(attends)} attends for {len(self.blocks)} blocks")
        cos, sin = rope_table(self.config, positions)
        x = self.embed(input_ids)
        yield x
        for block, attend in zip(self.blocks, attends, strict=True):
            x = block(x, cos, sin, attend)
            yield x

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor | None = None,
        attends: Sequence[Callable[..., torch.Tensor]] | None = None,
    ) -> torch.Tensor:
        """The last block's output (B, T, C); no other state is kept."""
        for x in self.stream(input_ids, positions, attends):
            last = x
        return last

    def hidden_states(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor | None = None,
        attends: Sequence[Callable[..., torch.Tensor]] | None = None,
    ) -> list[torch.Tensor]:
        """Everything that `stream` gives, kept."""
        return list(self.stream(input_ids, positions, attends))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of every next token: (..., C) -> (..., vocab_size).

        `x` is a state as a block leaves it: the final norm is applied
        here.
        """
        head = self.embed if self.config.tie_word_embeddings else self.lm_head
        return self.product(self.norm(x), head.weight)
