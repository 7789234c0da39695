"""A block from HuggingFace's input, all blocks from the token ids, and both in bf16: Day 7."""

import torch

from nanoserve.checks.block_slips import block_slips, head_slips
from nanoserve.checks.common import BF16, agree, alike, attempt, holds
from nanoserve.checks.model_loading import load
from nanoserve.comparison import Scoreboard, compare
from nanoserve.layers import causal_attention, rope_table
from nanoserve.model import Llama
from nanoserve.reference import Reference


def from_ids(
    board: Scoreboard, ref: Reference, model: Llama, *positions: torch.Tensor
) -> list[torch.Tensor]:
    """What each block gives, from the token ids on; compares what goes into block 0.

    Attention's scores see distances only: positions that are all shifted show in the angles.
    """
    handed, given = {}, []

    def look(module, args, kwargs):
        given.append(args[0].clone())
        if len(given) == 1:
            handed.update(zip(("x", "cos", "sin"), args, strict=False), **kwargs)

    hooks = [b.register_forward_pre_hook(look, with_kwargs=True) for b in model.blocks]
    try:
        states = attempt("hidden_states", model.hidden_states, ref.input_ids, *positions)
    finally:
        for hook in hooks:
            hook.remove()
    agree(
        "hidden_states, how many it gives: the embedding, and one a block", *counts(states, model)
    )
    check_kept(f"{ref.path.name}, hidden_states", given, states)
    board.compare(ref, "into block 0", "embed", states[0])
    for what in ("cos", "sin"):
        holds(f"block 0 must be handed x, {what} and the rest", what in handed)
        # One row of angles may serve all rows of the batch.
        rows = attempt(f"{what} by row", handed[what].expand, len(ref.input_ids), -1, -1)
        board.compare(ref, "into block 0", what, rows)
    return states[1:]


def counts(states: list, model: Llama) -> tuple[int, int]:
    """How many states there are, and how many are wanted."""
    return len(states), 1 + len(model.blocks)


def check_kept(what: str, given: list[torch.Tensor], states: list[torch.Tensor]) -> None:
    """That every state is still what the next block was given: nothing was written over it."""
    pairs = enumerate(zip(given, states, strict=False))  # no block is given the last state
    altered = [i for i, (x, state) in pairs if not alike(x, state)]
    holds(
        f"{what}: each state must still be what the next block was given",
        not altered,
        f"the inputs of blocks {altered!s:.100} have changed since. x += y changes the tensor that "
        "was kept; x = x + y makes a new one",
    )


@torch.inference_mode()
def check_blocks(board: Scoreboard, ref: Reference, model: Llama) -> None:
    """Every block from HuggingFace's own input to it, which must not be changed.

    The first and the last are given an `attend`, and must hand it q, k and v.
    """
    cos, sin = rope_table(model.config, ref.positions)
    ends = {0, len(model.blocks) - 1}
    for i, block in enumerate(model.blocks):
        name, handed = f"blocks.{i}", {}

        def attend(q, k, v, handed=handed):
            handed |= {"q": q, "k": k, "v": v}
            return causal_attention(q, k, v)

        extra = (attend,) if i in ends else ()
        mine = attempt(name, block, ref.inputs[name], cos, sin, *extra)
        slips = block_slips(block, ref.inputs[name], cos, sin)
        board.compare(ref, "block", name, mine, lookalikes=slips)
        if extra:
            agree(f"{name}, what the attend it was given is handed", set(handed), {"q", "k", "v"})
        for what, got in handed.items():
            board.compare(ref, "the seam", f"{name}.attn.{what}", got)


@torch.inference_mode()
def check_chain(
    board: Scoreboard, ref: Reference, model: Llama, bar: float, *positions: torch.Tensor
) -> None:
    """All blocks from the token ids, then the final norm and the logits, within `bar`."""
    states = from_ids(board, ref, model, *positions)
    for i, mine in enumerate(states):
        board.compare(ref, "chain", f"blocks.{i}", mine, rtol=bar, atol=bar)
    norm, logits = model.norm(states[-1]), model.logits(states[-1])
    board.compare(ref, "chain", "norm", norm, rtol=bar, atol=bar)
    slips = head_slips(model, states[-1])
    board.compare(ref, "logits", "logits", logits, lookalikes=slips, rtol=bar, atol=bar)


@torch.inference_mode()
def check_bf16(ref: Reference, model: Llama) -> None:
    """Every block of `model` from HuggingFace's input, in bf16."""
    cos, sin = rope_table(model.config, ref.positions)
    for i, block in enumerate(model.blocks):
        name = f"{ref.path.name}, blocks.{i} in bf16"
        mine = attempt(name, block, ref.inputs[f"blocks.{i}"], cos, sin)
        theirs = ref.outputs[f"blocks.{i}"]
        compare(name, mine, theirs, rtol=3e-2, atol=3e-2)
        # A block that adds in fp32 and rounds once is within 3e-2 too, and is not this model.
        same = (mine == theirs).float().mean().item()
        holds(
            f"{name}: more than 95% of the values must be HuggingFace's to the bit (each half is "
            "added in bf16)",
            same > 0.95,
            f"{same:.0%} are",
        )
    last = attempt("the chain in bf16", model, ref.input_ids)
    agree("a bf16 model's logits, their dtype", str(model.logits(last).dtype), str(BF16))


def check_first_bf16(ref: Reference) -> None:
    """Block 0 and its parameters in bf16, on a few of the prompt's tokens."""
    one = load(ref.path, num_blocks=1, dtype=BF16)
    few = {"input_ids": ref.input_ids[-2:, -9:], "positions": ref.positions[-2:, -9:]}
    ref = Reference(ref.path, BF16, keep_parameters=True, **few)
    check_bf16(ref, one)
    for name, mine in one.named_parameters():
        same = torch.equal(mine, ref.parameters[name])
        holds(f"{ref.path.name}, loaded in bf16: {name} must be HuggingFace's to the bit", same)


def lighten(ref: Reference) -> None:
    """Keep what the chain is held against: the whole model comes next, and needs the memory."""
    for name in list(ref.outputs):
        if name.endswith((".weights", ".attn", ".mlp", "_norm")):
            del ref.outputs[name]
            ref.inputs.pop(name, None)
    # All logits have been compared, from HuggingFace's last state.
    ref.outputs["logits"] = ref.outputs["logits"][:, -1:].clone()
