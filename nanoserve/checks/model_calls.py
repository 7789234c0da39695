"""How the model is called: with positions, with attends, for one state or all of them: Day 7."""

import weakref
from functools import partial

import torch

from nanoserve.checks.common import agree, alike, attempt, holds, must_raise
from nanoserve.layers import causal_attention
from nanoserve.model import Llama


@torch.inference_mode()
def check_forward(model: Llama, ids: torch.Tensor) -> None:
    """Called, the model gives the last state to the bit, and lets go of the others."""
    places, alive, layers = 5 + torch.arange(9), [], len(model.blocks)
    attends = [lambda q, k, v, i=i: causal_attention(q, k, v) * (i + 1) for i in range(layers)]
    for given in ({}, {"positions": places}, {"positions": places, "attends": attends}):
        mine = attempt("the model, called", model, ids, **given)
        (*_, last) = model.hidden_states(ids, **given)
        holds(
            f"the model, called with ids and {sorted(given) or 'no more'}, must give the last of "
            "hidden_states, to the bit",
            alike(mine, last),
        )

    def keep(module, args, output):
        alive.append(weakref.ref(output))

    hooks = [block.register_forward_hook(keep) for block in model.blocks]
    last = model(ids)
    for hook in hooks:
        hook.remove()
    kept = [i for i, state in enumerate(alive) if state() is not None and state() is not last]
    holds(
        "the model, when it is called, must let go of every block's output but the last",
        not kept,
        f"it still holds those of blocks {kept}",
    )
    for name, given in {
        "two attends": {"attends": attends[:2]},
        "four attends": {"attends": [*attends, causal_attention]},
        "one position": {"positions": places[:1]},
        "positions of two rows": {"positions": places.expand(2, 9)},
    }.items():
        for act in (model, model.hidden_states):
            must_raise(ValueError, f"{name} for {layers} blocks and 3 rows of 9", act, ids, **given)


@torch.inference_mode()
def check_attends(model: Llama, ids: torch.Tensor) -> None:
    """Each block is handed its own `attend`, and uses what that gives."""
    calls, layers = [], range(len(model.blocks))

    def attend(i, q, k, v):
        calls.append(i)
        return causal_attention(q, k, v) * (i != 1)

    attends = [partial(attend, i) for i in layers]
    changed = attempt("attends", model.hidden_states, ids, attends=attends)
    agree("blocks whose attend was called", calls, [*layers])
    usual = model.hidden_states(ids)
    other = [i for i, pair in enumerate(zip(changed, usual, strict=True)) if not alike(*pair)]
    holds(
        "hidden_states, with an attend of zeros for block 1: states 2 and 3 must change",
        other == [2, 3],
        f"of states 0 to 3 these do: {other}",
    )
