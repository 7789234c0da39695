"""A block from HuggingFace's input, all blocks from the token ids, and both in bf16: Day 7."""

import torch

from nanoserve.checks.common import BF16, agree, attempt
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
    handed = {}

    def look(module, args, kwargs):
        handed.update(zip(("x", "cos", "sin"), args, strict=False), **kwargs)

    hook = model.blocks[0].register_forward_pre_hook(look, with_kwargs=True)
    try:
        states = attempt("hidden_states", model.hidden_states, ref.input_ids, *positions)
    finally:
        hook.remove()
    agree("number of states", len(states), 1 + len(model.blocks))
    board.compare(ref, "into block 0", "embed", states[0])
    for what in ("cos", "sin"):
        agree(f"block 0 is handed {what}", what in handed, True)
        # One row of angles may serve all rows of the batch.
        rows = attempt(f"{what} by row", handed[what].expand, len(ref.input_ids), -1, -1)
        board.compare(ref, "into block 0", what, rows)
    return states[1:]


@torch.inference_mode()
def check_blocks(board: Scoreboard, ref: Reference, model: Llama) -> None:
    """Every block from HuggingFace's own input to it, which must not be changed."""
    cos, sin = rope_table(model.config, ref.positions)
    for i, block in enumerate(model.blocks):
        name = f"blocks.{i}"
        board.compare(ref, "block", name, attempt(name, block, ref.inputs[name], cos, sin))


@torch.inference_mode()
def check_seam(board: Scoreboard, ref: Reference, model: Llama) -> None:
    """The first and the last block hand q, k and v to the `attend` that they are given."""
    cos, sin = rope_table(model.config, ref.positions)
    for i in sorted({0, len(model.blocks) - 1}):
        name, handed = f"blocks.{i}", {}

        def attend(q, k, v, handed=handed):
            handed |= {"q": q, "k": k, "v": v}
            return causal_attention(q, k, v)

        mine = attempt(name, model.blocks[i], ref.inputs[name], cos, sin, attend)
        board.compare(ref, "block", name, mine)
        agree(f"{name}, attend is handed", set(handed), {"q", "k", "v"})
        for what, mine in handed.items():
            board.compare(ref, "the seam", f"{name}.attn.{what}", mine)


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
    board.compare(ref, "logits", "logits", logits, rtol=bar, atol=bar)


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
        if same <= 0.95:
            raise AssertionError(f"{name}: {same:.0%} of the values are the same, 95% are wanted")
    states = attempt("the chain in bf16", model.hidden_states, ref.input_ids)
    agree("dtype of a bf16 model's logits", model.logits(states[-1]).dtype, BF16)


def check_first_bf16(ref: Reference) -> None:
    """Block 0 and its parameters in bf16, on a few of the prompt's tokens."""
    one = load(ref.path, num_blocks=1, dtype=BF16)
    few = {"input_ids": ref.input_ids[-2:, -9:], "positions": ref.positions[-2:, -9:]}
    ref = Reference(ref.path, BF16, keep_parameters=True, **few)
    check_bf16(ref, one)
    for name, mine in one.named_parameters():
        same = torch.equal(mine, ref.parameters[name])
        agree(f"{ref.path.name}: {name} is HuggingFace's, in bf16", same, True)


def lighten(ref: Reference) -> None:
    """Keep what the chain is held against: the whole model comes next, and needs the memory."""
    for name in list(ref.outputs):
        if name.endswith((".weights", ".attn", ".mlp", "_norm")):
            del ref.outputs[name]
            ref.inputs.pop(name, None)
    # All logits have been compared, from HuggingFace's last state.
    ref.outputs["logits"] = ref.outputs["logits"][:, -1:].clone()
