"""HuggingFace's own continuous batching, on a processor: the second judge of Day 16."""

import logging

from torch import nn

from nanoserve.reference import transformers


def their_batch(theirs: nn.Module, prompts: list[list[int]], most: int) -> list[list[int]]:
    """The new ids of HuggingFace's continuous batching, all prompts at once."""
    settings = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=most, eos_token_id=-1, pad_token_id=0
    )
    small = transformers.ContinuousBatchingConfig(
        page_size=16,
        num_blocks=64,
        max_batch_tokens=64,
        use_cuda_graph=False,
        use_async_batching=False,
    )
    quiet = logging.getLogger("ContinuousBatchingLogger")
    level, attention = quiet.level, theirs.config._attn_implementation
    quiet.setLevel(logging.ERROR)
    theirs.set_attn_implementation("sdpa")
    try:
        answers = theirs.generate_batch(
            prompts,
            generation_config=settings,
            continuous_batching_config=small,
            warmup=False,
        )
    finally:
        theirs.set_attn_implementation(attention)
        quiet.setLevel(level)
    return [answer.generated_tokens for answer in answers.values()]
