"""The engine on a GPU: the same rule, the same pool, kernels in the place of the plain runner."""

from numbers import Real
from os import PathLike
from typing import Any

import torch

from nanoserve.cpu import make_fast
from nanoserve.engine.ahead import AheadEngine
from nanoserve.engine.asked import check_device, check_settings, new_pool
from nanoserve.engine.desk import new_scheduler, opened
from nanoserve.engine.pool import KVPool
from nanoserve.kernels.fused import FusedLlama
from nanoserve.kernels.runner import GPURunner
from nanoserve.model import Llama

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
SPARE = 2**30  # bytes that graphs and libraries take, besides what is measured


class GPUEngine(AheadEngine):
    """An Engine on one GPU.

    `dtype` is bfloat16 for a checkpoint, if not given; a Llama is taken as it is, on the GPU. Texts
    may have `max_model_len` tokens, the model's context if not given. The pool has `num_blocks`, or
    what `gpu_memory_utilization` of the card's memory leaves for it. ValueError for what cannot be
    honoured.
    """

    def __init__(
        self,
        model: Llama | str | PathLike,
        *,
        device: str = "cuda",
        dtype: str | None = None,
        block_size: int = 16,
        num_blocks: int | None = None,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int = 8192,
        max_model_len: int | None = None,
        gpu_memory_utilization: float = 0.9,
        enable_prefix_caching: bool = True,
    ):
        check_settings(
            enable_prefix_caching,
            block_size=block_size,
            num_blocks=1 if num_blocks is None else num_blocks,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            max_model_len=1 if max_model_len is None else max_model_len,
        )
        check_card(device, gpu_memory_utilization)
        check_given(model, device, dtype)
        model, self.tokenizer, self.eos_ids = opened(model)
        self.model = on_the_card(model, device, dtype)
        context = self.model.config.max_position_embeddings
        longest = min(context, max_model_len or context)
        fused = FusedLlama(self.model, longest)
        if num_blocks is None:
            rows = max_num_seqs * -(-longest // block_size)
            share = gpu_memory_utilization
            num_blocks = min(
                rows, blocks_on_the_card(fused, block_size, max_num_batched_tokens, share)
            )
        weight = self.model.embed.weight
        # One block more than the manager knows: what pads a step reads and writes there.
        kind = weight.dtype, weight.device
        pool = new_pool(KVPool, self.model.config, num_blocks + 1, block_size, *kind)
        limits = max_num_seqs, max_num_batched_tokens
        scheduler = new_scheduler(enable_prefix_caching, num_blocks, block_size, *limits)
        longest = min(longest, num_blocks * block_size + 1)
        self.furnish(GPURunner(fused, pool, max_num_seqs, longest), scheduler, longest)
        self.begin()


def check_card(device: Any, share: Any) -> None:
    """ValueError where there is no such GPU, or for a share of its memory that is none."""
    check_device(device)
    kind, _, number = str(device).partition(":")
    if kind != "cuda":
        raise ValueError(f"device is {device!r}, and this engine is for cuda")
    if not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, and torch {torch.__version__} sees no GPU here")
    if number and int(number) >= torch.cuda.device_count():
        raise ValueError(f"device is {device!r}, and there are {torch.cuda.device_count()} GPUs")
    if not isinstance(share, Real) or not 0 < share <= 1:
        raise ValueError(f"gpu_memory_utilization must be over 0, and 1 at most, got {share!r}")


def check_given(model: Llama | str | PathLike, device: Any, dtype: str | None) -> None:
    """ValueError for a dtype that there is not, or a dtype or GPU that a Llama at hand has not."""
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, wanted one of {', '.join(DTYPES)}")
    if isinstance(model, Llama):
        weight = model.embed.weight
        if not weight.is_cuda:
            raise ValueError("the model is not on a GPU: model.to('cuda') brings it there")
        if ":" in str(device) and str(weight.device) != str(device):
            raise ValueError(f"device is {device!r}, and the model is on {weight.device}")
        if dtype is not None and DTYPES[dtype] != weight.dtype:
            raise ValueError(f"dtype is {dtype}, and the model's is {weight.dtype}: leave it out")


def on_the_card(model: Llama, device: str, dtype: str | None) -> Llama:
    """The model there, in that dtype."""
    if model.embed.weight.is_cuda:
        return model
    make_fast(model, on=False)
    return model.to(device, DTYPES[dtype or "bfloat16"])


@torch.inference_mode()
def blocks_on_the_card(model: FusedLlama, block_size: int, tokens: int, share: float) -> int:
    """As many as a share of the card's memory leaves, beside weights and a step of `tokens`."""
    config, weight = model.model.config, model.model.embed.weight
    pool = KVPool(config, 1, block_size, weight.dtype, weight.device)
    zeros = torch.zeros(tokens, dtype=torch.int64, device=weight.device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    # Attention takes no memory to speak of beside its output.
    model.scores(zeros, zeros, zeros, pool.k, pool.v, lambda q, k, v: q.flatten(1), last=zeros[:1])
    step = torch.cuda.max_memory_allocated() - before
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    left = free - (1 - share) * total - step - SPARE
    each = config.kv_cache_bytes_per_token(weight.dtype) * block_size
    if left < each:
        raise ValueError(
            f"the card has {free / 2**30:.1f} GiB free, and a step of {tokens} tokens takes "
            f"{step / 2**30:.1f} of them: lower max_num_batched_tokens, or use a larger card"
        )
    return int(left // each)
