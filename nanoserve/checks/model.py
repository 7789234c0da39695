"""Small made-up models, saved by transformers and loaded by us: Day 7.

They show what big checkpoints cannot: untied heads, a head size that is not C / H, another eps,
far positions in each row, gradients, and values that fp16 cannot hold.
"""

import tempfile
import weakref
from functools import partial
from pathlib import Path

import torch
from torch import nn

from nanoserve.checks.blocks import check_bf16, check_blocks, check_chain, check_seam
from nanoserve.checks.common import BF16, agree, alike, attempt, must_raise
from nanoserve.checks.model_loading import check_loading, load
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.layers import causal_attention
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
TEXTS = ((1, 1, 0), (3, 2, 0), (2, 520, 0), (2, 520, 150))


def check_models(board: Scoreboard) -> None:
    """Texts of many shapes, loading, what is refused, bf16, gradients, massive values."""
    for variant in VARIANTS:
        theirs = make(variant)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / MADE_UP
            theirs.save_pretrained(path, max_shard_size="8KB")
            agree("several files", len(list(path.glob("*.safetensors"))) > 1, True)
            # One model for all texts: nothing may stay from an earlier one.
            model = load(path)
            check_texts(board, path, model)
            check_forward(model)
            check_attends(model)
            check_positions(board, path, model)
            check_loading(path, theirs)
            ref = Reference(path, BF16, input_ids=tokens(3, 70))
            check_bf16(ref, load(path, dtype=BF16))
            check_gradients(board, path, theirs)
            check_massive(board, path, theirs)


def make(variant: dict) -> nn.Module:
    """HuggingFace's model of these sizes, with seeded weights and gains that are not all 1."""
    torch.manual_seed(3)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, **variant))
    for p in model.parameters():
        if p.dim() == 1:
            nn.init.uniform_(p.data, 0.5, 1.5)
        else:
            nn.init.normal_(p.data, std=p.shape[1] ** -0.5)
    return model


def tokens(B: int, T: int) -> torch.Tensor:
    """Seeded token ids (B, T)."""
    return torch.randint(VOCAB, (B, T), generator=torch.Generator().manual_seed(0))


def check_texts(board: Scoreboard, path: Path, model: Llama) -> None:
    """Short and long texts, each row from its own position on; in training mode too."""
    ids, steps = tokens(3, 700), torch.tensor([[1], [2], [5]])
    places = torch.tensor([[0], [9000], [100]]) + steps * torch.arange(700)
    for B, T, start in TEXTS:
        some = slice(B), slice(start, start + T)
        ref = Reference(path, input_ids=ids[some], positions=places[some])
        model.train(start > 0)
        check_blocks(board, ref, model)
        check_seam(board, ref, model)
        check_chain(board, ref, model, BAR, ref.positions)
    model.eval()


@torch.inference_mode()
def check_forward(model: Llama) -> None:
    """Called, the model gives the last state to the bit, and lets go of the others."""
    ids, places, alive = tokens(3, 9), 5 + torch.arange(9), []
    attends = [lambda q, k, v, i=i: causal_attention(q, k, v) * (i + 1) for i in range(LAYERS)]
    for given in ({}, {"positions": places}, {"positions": places, "attends": attends}):
        mine = attempt("the model, called", model, ids, **given)
        (*_, last) = model.hidden_states(ids, **given)
        agree(
            f"the model called with {sorted(given)} gives its last state", alike(mine, last), True
        )

    def keep(module, args, output):
        alive.append(weakref.ref(output))

    hooks = [block.register_forward_hook(keep) for block in model.blocks]
    last = model(ids)
    for hook in hooks:
        hook.remove()
    kept = [i for i, state in enumerate(alive) if state() is not None and state() is not last]
    agree("blocks whose output the model keeps when it is called", kept, [])
    for name, given in {
        "two attends": {"attends": attends[:2]},
        "four attends": {"attends": [*attends, causal_attention]},
        "one position": {"positions": places[:1]},
        "positions of two rows": {"positions": places.expand(2, 9)},
    }.items():
        for act in (model, model.hidden_states):
            must_raise(ValueError, f"{name} for {LAYERS} blocks and 3 rows of 9", act, ids, **given)


@torch.inference_mode()
def check_attends(model: Llama) -> None:
    """Each block is handed its own `attend`, and uses what that gives."""
    ids, calls = tokens(3, 9), []

    def attend(i, q, k, v):
        calls.append(i)
        return causal_attention(q, k, v) * (i != 1)

    attends = [partial(attend, i) for i in range(LAYERS)]
    changed = attempt("attends", model.hidden_states, ids, attends=attends)
    agree("blocks whose attend was called", calls, [*range(LAYERS)])
    usual = model.hidden_states(ids)
    same = [torch.equal(*pair) for pair in zip(changed, usual, strict=True)]
    agree("states the same while block 1 attends to nothing", same, [True, True, False, False])


def check_positions(board: Scoreboard, path: Path, model: Llama) -> None:
    """Positions of shape (T,) and (1, T) for all rows; where none are given, from 0."""
    ids, places = tokens(3, 7), 7 + 3 * torch.arange(7)
    ref = Reference(path, input_ids=ids, positions=places.expand(3, 7))
    for given in (places, places[None]):
        check_chain(board, ref, model, BAR, given)
    check_chain(board, Reference(path, input_ids=ids), model, BAR)


def check_gradients(board: Scoreboard, path: Path, theirs: nn.Module) -> None:
    """The gradient of every parameter, of theirs and of ours."""
    ids, mine = tokens(2, 9), load(path).requires_grad_(True)
    states = attempt("hidden_states", mine.hidden_states, ids)
    attempt("gradients", mine.logits(states[-1]).square().mean().backward)
    theirs(ids).logits.square().mean().backward()
    wanted = {our_name(name): p.grad for name, p in theirs.named_parameters()}
    for name, p in mine.named_parameters():
        agree(f"{name} is cut off from the gradient", p.grad is None, False)
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
