"""Blocks and a head that take few rows by the loops of loops.py, and many as before."""

import os
import threading
from collections.abc import Callable
from functools import cache

import numba
import numpy as np
import torch

from nanoserve.cpu import loops
from nanoserve.layers import TransformerBlock, causal_attention
from nanoserve.model import Llama

MOST = 8  # rows: with more, oneDNN is faster
# Where numba has no OpenMP, two threads at once in its loops would end the process.
LOCK = threading.Lock()
# The threads do not come along into a fork, and OpenMP would end it.
PROCESS = os.getpid()


class Matrices:
    """Weights as the loops read them: in 16 bits where all have no more, else as they are.

    A copy in 16 bits is made once, and again when a weight is another tensor or was written to.
    Of tensors that do not count what is written to them there is none. What is copied is held on
    to, or another weight could come to lie where it lay and be taken for it.
    """

    def __init__(self):
        self.known, self.held, self.arrays = None, [], []

    def of(self, *weights: torch.Tensor) -> list[np.ndarray]:
        """An array (out, in) for each weight, of uint16 or float32."""
        if any(weight.is_inference() for weight in weights):
            return [weight.detach().numpy() for weight in weights]
        known = [(weight.data_ptr(), weight._version) for weight in weights]
        if known != self.known:
            self.arrays, self.known = as_read(weights), known
            self.held = [weight.detach() for weight in weights]
        return self.arrays

    def __reduce__(self) -> tuple:
        return Matrices, ()  # a copy, or what is read from a file, is of another model


def as_read(weights: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    """The arrays: bfloat16's bits, or float32's memory itself."""
    narrow = [weight.detach().to(torch.bfloat16) for weight in weights]
    if all(n.float().equal(w) for n, w in zip(narrow, weights, strict=True)):
        return [n.view(torch.int16).numpy().view(np.uint16) for n in narrow]
    return [weight.detach().numpy() for weight in weights]


def suits(x: torch.Tensor, *weights: torch.Tensor) -> bool:
    """Whether the loops take it: 1 to MOST rows, fp32 on the CPU in one piece, no gradients.

    None does in a fork.
    """
    tensors = (x, *weights)
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return (
        not learns
        and 0 < x.numel() <= MOST * x.shape[-1]
        and x.shape[-1] == weights[0].shape[-1]  # an error otherwise, and torch's says which
        and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
        and all(weight.is_contiguous() for weight in weights)
        and os.getpid() == PROCESS
    )


def rows(x: torch.Tensor) -> np.ndarray:
    """x (..., C) as an array (R, C)."""
    return x.detach().reshape(-1, x.shape[-1]).contiguous().numpy()


@cache
def start() -> None:
    """Let numba start its threads, which it does once, and torch keep the number of its own.

    Both ask OpenMP: numba sets the calling thread's number, and torch would go by that.
    """
    threads = torch.get_num_threads()
    numba.set_num_threads(1)
    torch.set_num_threads(threads)


def run(loop: Callable, *arguments: object) -> None:
    """A loop, on as many cores as torch takes."""
    with LOCK:
        start()
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        loop(*arguments)


class FewRowsBlock(TransformerBlock):
    """A TransformerBlock; what `attend` does stays its own."""

    def forward(
        self,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        attend: Callable[..., torch.Tensor] = causal_attention,
    ) -> torch.Tensor:
        a, mlp = self.attn, self.mlp
        linears = (a.q_proj, a.k_proj, a.v_proj, a.o_proj, *mlp.children())  # gate, up, down
        weights = [linear.weight for linear in linears]
        gains = [self.attn_norm.weight, self.mlp_norm.weight]
        if not suits(x, *weights, *gains):
            return super().forward(x, cos, sin, attend)
        wq, wk, wv, *others = self.matrices.of(*weights)
        first, second = (gain.detach().numpy() for gain in gains)
        B, T, C = x.shape
        flat, angles = rows(x), [rows(t.expand(B, T, a.head_dim)) for t in (cos, sin)]
        qkv = [x.new_empty(B * T, len(weight)) for weight in (wq, wk, wv)]
        arrays = [t.numpy() for t in qkv]
        run(loops.before, flat, first, self.attn_norm.eps, wq, wk, wv, *angles, *arrays)
        heads = (B, T, -1, a.head_dim)
        mix = attend(*(t.view(heads).transpose(1, 2) for t in qkv))  # (B, H, T, D)
        mix = mix.transpose(1, 2).flatten(2).expand(B, T, others[0].shape[1])  # or an error
        out = x.new_empty(B, T, C)
        run(loops.behind, flat, rows(mix), second, self.mlp_norm.eps, *others, rows(out))
        return out


class FewRowsHead:
    """The head's product, `many` for other than few rows."""

    def __init__(self, many: Callable[..., torch.Tensor]):
        self.many, self.matrices = many, Matrices()

    def __call__(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if not suits(x, weight):
            return self.many(x, weight)
        out = x.new_empty(*x.shape[:-1], len(weight))
        run(loops.product, rows(x), *self.matrices.of(weight), rows(out))
        return out


def plain(block: TransformerBlock) -> bool:
    """Whether all its parts are those of Days 4 to 7, in any of Day 11's products."""
    parts = [part for part in block.modules() if part is not block]
    ours = ("nanoserve.layers", "nanoserve.products")
    kind = type(block) in (TransformerBlock, FewRowsBlock)
    return kind and all(type(part).__module__ in ours for part in parts)


def use_few_rows(model: Llama, on: bool = True) -> bool:
    """Let the loops take few rows of a model, or no longer; whether they do now.

    Blocks and head change in place. Nothing changes where the parameters are not all float32 on
    the CPU or numba is told to compile nothing, and a block with a part that is a reader's own
    stays as it is. Meanwhile a block's parts are not called for few rows, nor are their hooks,
    and what is written to a weight's `data` may go unnoticed.
    """
    parameters = [*model.parameters()]
    on = on and not numba.config.DISABLE_JIT
    on = on and all(p.dtype == torch.float32 and p.device.type == "cpu" for p in parameters)
    for block in model.blocks:
        if plain(block):
            block.__class__ = FewRowsBlock if on else TransformerBlock
            vars(block).pop("matrices", None)
            if on:
                block.matrices = Matrices()
    if isinstance(model.product, FewRowsHead):
        model.product = model.product.many
    if on:
        model.product = FewRowsHead(model.product)
    return on
