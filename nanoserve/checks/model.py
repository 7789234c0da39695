"""Small made-up models, saved by transformers and loaded by us: Day 7.

They show what big checkpoints cannot: untied heads, a head size that is not C / H, another eps,
far positions in each row, gradients, and values that fp16 cannot hold.
"""

import tempfile
from pathlib import Path

import torch
from torch import nn

from nanoserve.checks.blocks import check_bf16, check_blocks, check_chain
from nanoserve.checks.common import BF16, attempt, holds
from nanoserve.checks.model_calls import check_attends, check_forward
from nanoserve.checks.model_loading import check_loading, check_promises, load
from nanoserve.checks.model_numbers import check_dtypes, check_meta, check_nan
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.model import Llama
from nanoserve.reference import Reference, our_name, transformers

VOCAB, C, LAYERS = 61, 24, 3
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": C,
    "intermediate_size": 40,
    "num_hidden_layers": LAYERS,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
VARIANTS = (
    {
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-3,
    },
    {
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "rope_parameters": LLAMA3,
    },
    {
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 6,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
    },
)
BAR = 5e-5  # in a chain rounding adds up, and not in the same way on every processor
# B and T, and which of the tokens comes first. Two texts have one shape and other positions.
TEXTS = ((1, 1, 0), (3, 2, 0), (3, 40, 0), (3, 40, 150), (2, 520, 0))
LONG = (1, 1300, 0)


def check_models(board: Scoreboard) -> None:
    """Texts of many shapes, loading, what is refused, dtypes, gradients, massive values."""
    for variant in VARIANTS:
        theirs = make(variant)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / MADE_UP
            theirs.save_pretrained(path, max_shard_size="8KB")
            files = len(list(path.glob("*.safetensors")))
            holds("the made-up model must lie in several files", files > 1)
            # One model for all texts: nothing may stay from an earlier one.
            model = load(path)
            plain = model.config.num_attention_heads == model.config.num_key_value_heads
            check_texts(board, path, model, (*TEXTS, LONG) if plain else TEXTS)
            check_positions(board, path, model)
            check_gradients(board, path, theirs)
            if plain:  # one matrix a head: HuggingFace's products have our shapes
                check_dtypes(path)
            else:
                check_bf16(Reference(path, BF16, input_ids=tokens(3, 70)), load(path, dtype=BF16))
            check_forward(model, tokens(3, 9))
            check_attends(model, tokens(3, 9))
            check_loading(path, theirs)
            check_massive(board, path, theirs)  # changes theirs
    check_promises_of(make(VARIANTS[-1]))


def check_promises_of(theirs: nn.Module) -> None:
    """What docstrings promise, on one of the models."""
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder, max_shard_size="8KB")
        check_promises(folder, theirs)
        model = load(folder)
        check_nan(model)
        check_meta(model.config)


def make(variant: dict) -> nn.Module:
    """HuggingFace's model of these sizes, with seeded weights and gains that are not all 1."""
    torch.manual_seed(3)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES | variant))
    for p in model.parameters():
        if p.dim() == 1:
            nn.init.uniform_(p.data, 0.5, 1.5)
        else:
            nn.init.normal_(p.data, std=p.shape[1] ** -0.5)
    return model


def tokens(B: int, T: int) -> torch.Tensor:
    """Seeded token ids (B, T)."""
    return torch.randint(VOCAB, (B, T), generator=torch.Generator().manual_seed(0))


def check_texts(board: Scoreboard, path: Path, model: Llama, texts: tuple) -> None:
    """Short and long texts, each row from its own position on; in training mode too."""
    ids, steps = tokens(3, 1400), torch.tensor([[1], [2], [5]])
    places = torch.tensor([[0], [9000], [100]]) + steps * torch.arange(1400)
    for B, T, start in texts:
        some = slice(B), slice(start, start + T)
        ref = Reference(path, input_ids=ids[some], positions=places[some])
        model.train(start > 0)
        check_blocks(board, ref, model)
        check_chain(board, ref, model, BAR, ref.positions)
    model.eval()


def check_positions(board: Scoreboard, path: Path, model: Llama) -> None:
    """Positions of shape (T,) and (1, T) for all rows; where none are given, from 0."""
    ids, places = tokens(3, 7), 7 + 3 * torch.arange(7)
    ref = Reference(path, input_ids=ids, positions=places.expand(3, 7))
    for given in (places[None], places):
        check_chain(board, ref, model, BAR, given)
    # The same tensors with other values in them, as `positions += 1` has in a loop.
    places += torch.tensor([0, 1, 4, 5, 9, 10, 20])
    ids.copy_(ids.flip(1))
    fresh = {"input_ids": ids.clone(), "positions": places.clone().expand(3, 7)}
    ref = Reference(path, **fresh)
    ref.input_ids = ids
    check_chain(board, ref, model, BAR, places)
    check_chain(board, Reference(path, input_ids=ids), model, BAR)


def check_gradients(board: Scoreboard, path: Path, theirs: nn.Module) -> None:
    """The gradient of every parameter, of theirs and of ours."""
    ids, mine = tokens(2, 9), load(path).requires_grad_(True)
    states = attempt("hidden_states", mine.hidden_states, ids)
    attempt("gradients", mine.logits(states[-1]).square().mean().backward)
    theirs(ids).logits.square().mean().backward()
    wanted = {our_name(name): p.grad for name, p in theirs.named_parameters()}
    for name, p in mine.named_parameters():
        holds(f"the gradient of the logits' squares must reach {name}", p.grad is not None)
        board.compare(None, "gradients", name, p.grad, wanted[name])


@torch.inference_mode()
def check_massive(board: Scoreboard, path: Path, theirs: nn.Module) -> None:
    """A residual stream far past what fp16 can hold, as trained models have; and a small one."""
    ids, mine = tokens(2, 9), load(path)
    for embed in (mine.embed, theirs.model.embed_tokens):
        embed.weight.mul_(1e6)
    # Their last state comes after the final norm.
    wanted = theirs(ids, output_hidden_states=True).hidden_states[:-1]
    states = attempt("hidden_states", mine.hidden_states, ids)
    for i, state in enumerate(states[:-1]):
        board.compare(None, "massive", f"state {i}", state, wanted[i])
    small = 1e-3 * torch.randn(9, C, generator=torch.Generator().manual_seed(0))  # eps counts here
    wanted = theirs.lm_head(theirs.model.norm(small))
    board.compare(None, "logits", "of small", mine.logits(small), wanted)
