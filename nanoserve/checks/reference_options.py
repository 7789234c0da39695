"""Reference's options on a small made-up model: other ids, float64, fused attention: Day 2."""

import tempfile
from pathlib import Path

import torch
from torch import nn

from nanoserve.checks.common import BF16, F16, F32, F64, agree, attempt, holds
from nanoserve.checks.config import ROPE_PARAMETERS, SMALL
from nanoserve.checks.reference import (
    check_dtypes,
    compare_run,
    last_weights,
    models_freed,
    names_on_record,
)
from nanoserve.comparison import MADE_UP, Scoreboard
from nanoserve.reference import Reference, modeling_llama, transformers

EPS = 1e-2
NEAR = {"rtol": 1e-4, "atol": 1e-4}
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def check_options(board: Scoreboard) -> None:
    """A Reference on given ids and positions; one in float64; one with fused attention."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / MADE_UP
        model = make_model(folder)
        ids = torch.randint(SMALL["vocab_size"], (2, 7))
        positions = torch.tensor([[0, 1, 2, 5, 9, 11, 400]]) + ids[:, :1]
        prompt = {"input_ids": ids, "positions": positions}
        with models_freed():
            ref = attempt("a record", Reference, folder, keep_parameters=True, **prompt)
            exact = attempt("a record in float64", Reference, folder, F64, **prompt)
            fused = attempt("sdpa", Reference, folder, attention="sdpa", input_ids=ids)
            places = 7 + positions[:1, :5].repeat_interleave(10, 1)[:, :48]
            placed = attempt("a record elsewhere", Reference, folder, positions=places)
    holds("a record must have the ids it is given", torch.equal(ref.input_ids, ids))
    holds("a record must have the positions it is given", torch.equal(ref.positions, positions))
    compare_run(board, ref, model)
    same = torch.equal(placed.positions, places.expand_as(placed.input_ids))
    holds("a record of the usual ids must have the positions it is given", same)
    compare_run(board, placed, model)
    compare_parameters(board, ref, model)
    compare_dtypes(board, exact, ref)
    check_exact(board, exact, model)
    check_fused(fused)


def make_model(folder: Path) -> nn.Module:
    """HuggingFace's model with no flattering weight, saved in `folder` in shards."""
    torch.manual_seed(0)
    values = SMALL | {"num_key_value_heads": 2, "rms_norm_eps": EPS, "bos_token_id": None}
    rope = dict(ROPE_PARAMETERS)  # a copy: what a LlamaConfig gets, it may change
    config = transformers.LlamaConfig(**values, rope_parameters=rope, attention_dropout=0.5)
    model = modeling_llama.LlamaForCausalLM(config).eval()
    for i, parameter in enumerate(model.parameters()):
        parameter.data.uniform_(-0.5, 1)
        parameter.data.view(-1)[0] = 1e-6
        # Stored in two dtypes, of which neither holds the other's values.
        parameter.data = parameter.data.to((BF16, F16)[i % 2])
    model.save_pretrained(folder, max_shard_size="60KB")
    model.to(F32).set_attn_implementation("eager")
    return model


def compare_parameters(board: Scoreboard, ref: Reference, model: nn.Module) -> None:
    """As many parameters as the model's, and one of each kind by our names."""
    agree("parameters", len(ref.parameters), len(list(model.parameters())))
    total = sum(tensor.double().sum().item() for tensor in ref.parameters.values())
    theirs = sum(tensor.double().sum().item() for tensor in model.parameters())
    agree("the sum of all parameters, of two dtypes in the file", total, theirs)
    inner, layer = model.model, model.model.layers[2]
    for name, module in {
        "embed.weight": inner.embed_tokens,
        "blocks.2.attn_norm.weight": layer.input_layernorm,
        "blocks.2.attn.k_proj.weight": layer.self_attn.k_proj,
        "blocks.2.mlp_norm.weight": layer.post_attention_layernorm,
        "blocks.2.mlp.down_proj.weight": layer.mlp.down_proj,
        "norm.weight": inner.norm,
        "lm_head.weight": model.lm_head,
    }.items():
        holds(f"{name} must be kept", name in ref.parameters)
        theirs = module.weight.detach()
        board.compare(ref, "parameters", name, ref.parameters[name], theirs)


def compare_dtypes(board: Scoreboard, exact: Reference, ref: Reference) -> None:
    """Everything is recorded in float64, and near to what float32 gives."""
    agree("float64, outputs on record", set(exact.outputs), set(ref.outputs))
    check_dtypes(exact, F64)
    for name, tensor in exact.outputs.items():
        theirs = ref.outputs[name]
        board.compare(exact, "float64 near fp32", name, tensor.float(), theirs, **NEAR)


def check_exact(board: Scoreboard, exact: Reference, model: nn.Module) -> None:
    """Whether float64 is exact: every norm, the weights and the mix of them, written out."""
    row, kept = "float64, written out", exact.outputs
    norms = {"norm": model.model.norm}
    for i, layer in enumerate(model.model.layers):
        at = f"blocks.{i}.attn"
        norms[f"{at}_norm"] = layer.input_layernorm
        norms[f"blocks.{i}.mlp_norm"] = layer.post_attention_layernorm
        weights = last_weights(kept[f"{at}.q"], kept[f"{at}.k"])
        board.compare(
            exact, row, f"{at}.weights", kept[f"{at}.weights"][:, :, -1:], weights, **TIGHT
        )
        v = kept[f"{at}.v"].repeat_interleave(weights.shape[1] // kept[f"{at}.v"].shape[1], 1)
        mix = (weights @ v).transpose(1, 2).flatten(2)  # (B, 1, H * D)
        mixed = mix @ layer.self_attn.o_proj.weight.detach().double().T
        board.compare(exact, row, at, kept[at][:, -1:], mixed, **TIGHT)
    for name, norm in norms.items():
        x, gain = exact.inputs[name], norm.weight.detach().double()
        wanted = x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * gain
        board.compare(exact, row, name, kept[name], wanted, **TIGHT)


def check_fused(fused: Reference) -> None:
    """No q, k, v and weights; positions from 0, and no parameters kept, as by default."""
    layers = SMALL["num_hidden_layers"]
    agree("sdpa, on record", set(fused.outputs), names_on_record(layers, eager=False)[1])
    agree("positions by default", fused.positions.tolist(), [list(range(7))] * 2)
    agree("nothing kept", fused.parameters, {})
