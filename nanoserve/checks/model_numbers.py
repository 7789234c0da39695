"""A small model in fp64, fp16 and bf16, on the meta device, and with NaN in it: Day 7."""

from os import PathLike

import torch

from nanoserve.checks.common import BF16, F16, F64, KIND, agree, attempt, holds
from nanoserve.checks.device import OneDevice
from nanoserve.checks.model_loading import load
from nanoserve.config import ModelConfig
from nanoserve.model import Llama
from nanoserve.reference import transformers


@torch.inference_mode()
def check_dtypes(path: PathLike) -> None:
    """The chain in three dtypes, loaded in one or cast to it, to the bit; massive values too.

    Only for a model whose query heads share no keys: HuggingFace's products have our shapes there,
    and the same operations round alike. Its own fp64 has softmax and norms in fp32, as ours has.
    """
    ids = torch.arange(2 * 50).view(2, 50) * 7 % 61
    places = torch.tensor([[0], [9000]]) + torch.arange(50)
    for dtype in (F64, F16, BF16):
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, attn_implementation="eager", local_files_only=True
        ).eval()
        models = {
            f"loaded in {KIND[dtype]}": load(path, dtype=dtype),
            f"loaded in fp32, then .to({dtype})": load(path).to(dtype),
        }
        for size in (1, 1e4):  # the embedding, and so the stream, of usual size, and massive
            theirs.model.embed_tokens.weight.mul_(size)
            out = theirs(ids, torch.ones_like(ids), places, output_hidden_states=True)
            for how, mine in models.items():
                mine.embed.weight.mul_(size)
                what = f"a model {how}, embedding times {size:g}"
                states = attempt(what, mine.hidden_states, ids, places)
                logits = attempt(what, mine.logits, states[-1])
                # Their last state comes after the final norm.
                for i, state in enumerate(states[:-1]):
                    check_bits(f"{what}: state {i}", state, out.hidden_states[i])
                check_bits(f"{what}: the logits", logits, out.logits)


def check_bits(what: str, mine: torch.Tensor, theirs: torch.Tensor) -> None:
    """AssertionError unless two tensors agree in dtype and in every bit."""
    same = mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    found = f"it is in {mine.dtype}"
    if not same and mine.dtype == theirs.dtype and mine.shape == theirs.shape:
        off = (mine.double() - theirs.double()).abs().max().item()
        found = f"{(mine == theirs).float().mean().item():.0%} are, and they are off by {off:.2g}"
    holds(f"{what} must be HuggingFace's eager one to the bit, in {theirs.dtype}", same, found)


@torch.inference_mode()
def check_nan(model: Llama) -> None:
    """NaN in one token stays NaN there and in every later token of its row, through all blocks."""

    def poison(module, args, output):
        output[1, 3] = torch.nan

    ids = torch.arange(12).view(2, 6)
    hook = model.embed.register_forward_hook(poison)
    try:
        states = attempt("hidden_states, NaN in row 1, token 3", model.hidden_states, ids)
    finally:
        hook.remove()
    for i, state in enumerate(states[1:]):
        found = state.isnan().any(-1)
        holds(
            f"NaN in row 1, token 3 of the embedding: after block {i}, tokens 3 to 5 of row 1 "
            "must be NaN, none of row 0",
            found[1, 3:].all().item() and not found[0].any().item(),
            f"[row, token] with NaN: {found.nonzero().tolist()}",
        )


@torch.inference_mode()
def check_meta(config: ModelConfig) -> None:
    """It runs on the device of what it is given: here one whose tensors have no values."""
    with torch.device("meta"):
        made = attempt("Llama, made on the meta device", Llama, config)
    moved = attempt("Llama", Llama, config).to("meta")
    # Handed over from outside: nothing in it may be made on the default device.
    ids, places = (torch.empty((2, 7), dtype=torch.long, device="meta") for _ in range(2))
    for model in (made, moved):
        for given in ((ids,), (ids, places)):
            what = f"Llama on the meta device, {'positions given' if given[1:] else 'ids alone'}"
            with OneDevice():
                out = attempt(what, model, *given)
                scores = attempt(what, model.logits, out)
            agree(f"{what}, the device of its logits", scores.device.type, "meta")
