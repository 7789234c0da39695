"""Operations and bytes of a step, counted by torch on HuggingFace's model: Day 11.

That model stands on the meta device, where tensors have shapes and no values: torch's counter sees
every product that the real one makes, of any size, and nothing is computed.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nanoserve.cache import KVCache
from nanoserve.checks.common import BF16, F32, agree, attempt, holds, must_raise
from nanoserve.checks.cost_machine import check_clock, check_machine, check_measure
from nanoserve.checks.model import SIZES, VARIANTS
from nanoserve.comparison import Scoreboard
from nanoserve.config import ModelConfig
from nanoserve.cost import Cost, step_cost
from nanoserve.reference import transformers

PARTS = ("blocks", "attention", "head")
COUNTED = {"attention": ", with the pairs that the mask hides,"}
# Texts, new tokens of each, tokens with those before them, and how many are scored.
SHAPES = (
    (1, 1, 1, 1),
    (1, 7, 7, 7),
    (2, 16, 16, 1),
    (1, 1, 33, 1),
    (3, 5, 21, 2),
    (64, 1, 2048, 1),
    (4, 512, 1024, 1),
)
FEW = SHAPES[4:6]  # of the checkpoints, which have many layers and are slow
BITS = ((32, 32), (16, 16), (16, 32), (8, 16), (4, 8))


def their_meta_model(config: Any) -> nn.Module:
    """HuggingFace's model of these sizes, eager, without any values."""
    config._attn_implementation = "eager"
    with torch.device("meta"):
        return transformers.LlamaForCausalLM(config).eval()


def counted(model: nn.Module, shape: tuple[int, int, int, int]) -> tuple[dict[str, int], int]:
    """The counter's operations by part, and the bytes of HuggingFace's cache afterwards."""
    batch, new, context, scored = shape
    cache = transformers.DynamicCache(config=model.config)
    with torch.device("meta"), torch.no_grad():
        ids = torch.zeros(batch, context, dtype=torch.long)
        if new < context:  # what was read before is not of this step
            model(ids[:, : context - new], past_key_values=cache, use_cache=True)
        with FlopCounterMode(display=False) as counter:
            out = model(ids[:, :new], past_key_values=cache, use_cache=True, logits_to_keep=scored)
    agree("rows that HuggingFace scores", [*out.logits.shape[:2]], [batch, scored])
    found = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    blocks = sum(n for name, n in found.items() if name.endswith("_proj"))
    (head,) = (n for name, n in found.items() if name.endswith("lm_head"))
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    parts = {"blocks": blocks, "head": head, "attention": counter.get_total_flops() - blocks - head}
    return parts, held


def ours(config: ModelConfig, shape: tuple[int, ...], **bits: int) -> dict[str, Cost]:
    """`step_cost` of a shape."""
    batch, new, context, scored = shape
    what = f"step_cost of {batch} texts, {new} new of {context} tokens, {scored} scored"
    given = {"batch": batch, "new": new, "context": context, "scored": scored}
    parts = attempt(what, step_cost, config, **given, **bits)
    agree(f"{what}: its parts", sorted(parts), sorted(PARTS))
    for name, part in parts.items():
        whole = type(part.flops) is int and type(part.bytes) is int
        holds(f"{what}: operations and bytes must be of type int", whole, f"{name} has {part}")
    return parts


def exactly(board: Scoreboard, ref: Path | None, what: str, name: str, mine: int, theirs: int):
    """Two whole numbers, which must be equal."""
    board.compare(ref, what, name, torch.tensor(mine), torch.tensor(theirs))


def check_operations(
    board: Scoreboard, ref: Path | None, theirs: Any, config: ModelConfig, shapes: Any = SHAPES
) -> None:
    """By part and for every shape, the counter's number on HuggingFace's model of `theirs`."""
    model = their_meta_model(theirs)
    head = "tied" if config.tie_word_embeddings else "untied"
    for shape in shapes:
        mine = ours(config, shape)
        wanted, held = counted(model, shape)
        name = "texts {}, {} new of {}, {} scored, head {}".format(*shape, head)
        for part in PARTS:
            flops = mine[part].flops
            full = f"{part}{COUNTED.get(part, '')} of {name}"
            exactly(board, ref, "operations", full, flops, wanted[part])
        what = "bytes of the cache"
        exactly(board, ref, what, f"DynamicCache, {name}", mine["attention"].bytes, held)
    # HuggingFace's cache is as long as it is; ours has places.
    for batch, length, dtype in ((1, 1, F32), (3, 20, F32), (2, 33, BF16)):
        cache = KVCache(config, batch, length, dtype)
        mine = ours(config, (batch, 1, length, 1), cache_bits=8 * dtype.itemsize)
        name = f"KVCache, {batch} x {length} in {dtype}"
        exactly(board, ref, "bytes of the cache", name, mine["attention"].bytes, cache.nbytes)


def check_bytes(
    board: Scoreboard, ref: Path | None, stored: dict[str, torch.Tensor], config: ModelConfig
) -> None:
    """What a step reads of the weights: their bytes, without an embedding that is no head."""
    tied = config.tie_word_embeddings
    head = stored["model.embed_tokens.weight" if tied else "lm_head.weight"]
    apart = {"model.embed_tokens.weight", "lm_head.weight"}
    blocks = sum(tensor.nbytes for name, tensor in stored.items() if name not in apart)
    mine = ours(config, (1, 1, 1, 1), weight_bits=8 * head.itemsize)
    exactly(board, ref, "bytes of the weights", "blocks and norms", mine["blocks"].bytes, blocks)
    exactly(board, ref, "bytes of the weights", "head", mine["head"].bytes, head.nbytes)


def stored_tensors(path: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors as its files have them."""
    stored = {}
    for file in path.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            names = opened.keys()
            stored |= {name: opened.get_tensor(name) for name in names}
    return stored


def check_bits(config: ModelConfig) -> None:
    """Bytes go with their own bits and with nothing else; operations with none of them."""
    plain = ours(config, (3, 2, 9, 1))
    for weights, cache in BITS:
        mine = ours(config, (3, 2, 9, 1), weight_bits=weights, cache_bits=cache)
        for part in PARTS:
            what = f"{part}, weights in {weights} bits and cache in {cache}"
            bits = cache if part == "attention" else weights
            wanted = Cost(plain[part].flops, plain[part].bytes * bits // 32)
            agree(what, mine[part], wanted)
    # More texts read the same weights once; longer ones read more cache and nothing else.
    more, longer = ours(config, (6, 2, 9, 1)), ours(config, (3, 2, 18, 1))
    for part in ("blocks", "head"):
        agree(f"bytes of the {part}, of six texts", more[part].bytes, plain[part].bytes)
        agree(f"cost of the {part} at twice the context", longer[part], plain[part])
    scored = ours(config, (3, 2, 9, 2))["head"].bytes
    agree("bytes of the head, where two rows a text are scored", scored, plain["head"].bytes)
    mine = attempt("step_cost with new 5", step_cost, config, new=5)
    agree("a prompt's cost, its context not given", mine, ours(config, (1, 5, 5, 1)))


def check_refusals(config: ModelConfig) -> None:
    """Numbers that make no step are refused by name."""
    no_step: tuple[tuple[dict, str], ...] = (
        ({"batch": 0}, "batch"),
        ({"new": 0}, "new"),
        ({"new": 3, "context": 2}, "context 2"),
        ({"new": 3, "scored": 4}, "scored 4"),
        ({"scored": 0}, "scored"),
        ({"weight_bits": 0}, "weight_bits"),
        ({"cache_bits": -8}, "cache_bits"),
        ({"batch": 1.5}, "batch"),
        ({"new": True}, "new"),
    )
    for given, word in no_step:
        said = must_raise(ValueError, f"step_cost with {given}", step_cost, config, **given)
        agree(f"step_cost with {given} names {word}", word in said, True)


def their_config(path: Path) -> Any:
    """HuggingFace's own reading of a checkpoint's config.json."""
    return transformers.AutoConfig.from_pretrained(path, local_files_only=True)


def check_costs(board: Scoreboard) -> None:
    """On made sizes: untied heads, heads of other widths, bits, refusals; and the machine.

    Reading more than a processor's cache holds takes longest, and comes last.
    """
    check_machine()
    check_clock()
    for variant in VARIANTS:
        theirs = transformers.LlamaConfig(**SIZES | variant)
        config = ModelConfig.from_dict(theirs.to_dict())
        check_bits(config)
        check_refusals(config)
        check_operations(board, None, theirs, config)
        check_bytes(board, None, their_meta_model(theirs).state_dict(), config)
    check_measure()


def check_cost(board: Scoreboard, path: Path) -> None:
    """Of a checkpoint: operations, bytes of its files, bytes of its cache."""
    config = ModelConfig.from_pretrained(path)
    check_operations(board, path, their_config(path), config, FEW)
    check_bytes(board, path, stored_tensors(path), config)
