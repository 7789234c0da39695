"""What a step costs: operations, bytes, and the time that they take.

Built in the book: day11. Edit there, then run book/tangle.py.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import linear

from nanoserve.config import ModelConfig


@dataclass(frozen=True)
class Cost:
    """Operations of a part of a step, and the bytes that it reads."""

    flops: int
    bytes: int


def step_cost(
    config: ModelConfig,
    *,
    batch: int = 1,
    new: int = 1,
    context: int | None = None,
    scored: int = 1,
    weight_bits: int = 32,
    cache_bits: int = 32,
) -> dict[str, Cost]:
    """What one pass over `batch` texts costs: "blocks", "attention", "head".

    In each text `new` tokens are read, the last of `context` (of `new`,
    if not given), and `scored` of them go through the head. A decode
    step has new 1, a prefill new = context. "blocks" are their matrices
    and all norms; "attention" reads the cache. Left out: activations,
    rows of the embedding, and operations outside of matrix products.
    ValueError for numbers that make no step.
    """
    context = new if context is None else context
    check_step(batch, new, context, scored, weight_bits, cache_bits)
    C, D = config.hidden_size, config.head_dim
    H, K = config.num_attention_heads, config.num_key_value_heads
    layers, table = config.num_hidden_layers, config.vocab_size * C
    tables = 1 if config.tie_word_embeddings else 2
    held = config.num_parameters - tables * table
    matrices = held - (2 * layers + 1) * C  # a norm is no product
    pairs = batch * new * context  # of a query and a key, in each head
    cached = 2 * batch * context * K * D * layers  # keys and values
    return {
        "blocks": Cost(2 * matrices * batch * new, held * weight_bits // 8),
        "attention": Cost(4 * pairs * H * D * layers, cached * cache_bits // 8),
        "head": Cost(2 * table * batch * scored, table * weight_bits // 8),
    }


def check_step(
    batch: int,
    new: int,
    context: int,
    scored: int,
    weight_bits: int,
    cache_bits: int,
) -> None:
    """ValueError unless these are whole numbers that make a step."""
    given = dict(locals())
    for name, value in given.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be an int from 1: {value!r}")
    if not scored <= new <= context:
        raise ValueError(
            f"scored {scored} of new {new} of context {context}: each "
            "is a part of the next, so none may be larger"
        )


@dataclass(frozen=True)
class Machine:
    """Bytes a second that it reads, and operations a second it does.

    Peak numbers of a data sheet, or what `measure` has found.
    Source: Williams et al. 2009, the roofline model,
    doi:10.1145/1498765.1498785.
    """

    bandwidth: float
    rate: float

    @property
    def ridge(self) -> float:
        """Operations a byte at which both take equally long."""
        return self.rate / self.bandwidth

    def seconds(self, parts: dict[str, Cost]) -> float:
        """Of a step: each part takes the longer of its two times."""
        return sum(
            max(part.bytes / self.bandwidth, part.flops / self.rate) for part in parts.values()
        )


def best_seconds(
    work: Callable[[], object],
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """The shortest of `rounds` runs, after one to warm up."""
    work()
    spent = []
    for _ in range(rounds):
        start = clock()
        work()
        spent.append(clock() - start)
    return min(spent)


def read_bandwidth(seconds: Callable[..., float] = best_seconds) -> float:
    """Bytes a second of reading memory: the sum of 268 MB."""
    numbers = torch.ones(2**26, dtype=torch.float32)
    return numbers.nbytes / seconds(numbers.sum)


def measure(
    product: Callable[..., torch.Tensor] = linear,
    seconds: Callable[..., float] = best_seconds,
) -> Machine:
    """This machine, as `product(x, weight)` makes use of it in fp32.

    Its bandwidth with one row and 268 MB of weights, which no cache
    holds; its rate with 256 rows.
    """
    weights = torch.ones(64, 1024, 1024, dtype=torch.float32)

    def work(rows: int, matrices: int) -> Callable[[], object]:
        x = torch.ones(rows, 1024, dtype=torch.float32)
        return lambda: [product(x, w) for w in weights[:matrices]]

    read, done = weights.nbytes, 2 * 256 * weights[:8].numel()
    return Machine(read / seconds(work(1, 64)), done / seconds(work(256, 8)))
