"""Reference against a run of HuggingFace's model without our hooks: Day 2."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

import torch
from torch import nn

from nanoserve.checks.common import F32, agree, attempt, holds
from nanoserve.comparison import Scoreboard
from nanoserve.reference import Reference, modeling_llama, prompt, transformers

PARTS = ("", ".attn_norm", ".attn", ".mlp_norm", ".mlp")  # of a block, and the block itself


def models_in_memory() -> list[nn.Module]:
    """HuggingFace's Llamas that nobody has let go of, and parts of them; RoPE alone may stay."""
    kept = modeling_llama.LlamaRotaryEmbedding
    theirs = {x for x in vars(modeling_llama).values() if isinstance(x, type) and x is not kept}
    theirs = {x for x in theirs if issubclass(x, nn.Module) and x.__module__.endswith("llama")}
    return [x for x in gc.get_objects() if type(x) in theirs]


@contextmanager
def models_freed() -> Iterator[None]:
    """AssertionError where HuggingFace's model outlives the block that it was made in."""
    earlier = WeakSet(models_in_memory())  # those of an interrupted run, for one
    yield
    left = [model for model in models_in_memory() if model not in earlier]
    names = sorted({type(module).__name__ for module in left})
    agree("what of HuggingFace's model is still in memory", names, [])


def compare_record(board: Scoreboard, ref: Reference) -> None:
    """What `ref` recorded on its own prompt against a second run, and the prompt itself."""
    with models_freed():
        model = transformers.AutoModelForCausalLM.from_pretrained(
            ref.path, dtype=F32, attn_implementation="eager"
        ).eval()
        check_prompt(ref, model.config.max_position_embeddings)
        compare_run(board, ref, model)
        del model
        gc.collect()


def check_prompt(ref: Reference, context: int) -> None:
    """Several rows that are not the same; without a tokenizer, positions far into the context."""
    where = f"{ref.path.name}: the prompt"
    rows, tokens = ref.input_ids.shape
    enough = rows > 1 and tokens > 23
    holds(f"{where} must have several rows of 24 tokens", enough, f"it has {rows} of {tokens}")
    same = torch.equal(ref.input_ids[0], ref.input_ids[1])
    holds(f"{where} must have rows that differ, to tell rows apart", not same)
    again = all(map(torch.equal, prompt(ref.path, ref.config), (ref.input_ids, ref.positions)))
    holds(f"{where} must be the same each time", again)
    if not (ref.path / "tokenizer.json").exists():
        agree(f"{where}, furthest position", ref.positions.max().item(), context - 1)
        edge = context // 16  # Llama-3.2's context before it was stretched
        both_sides = {edge - 1, edge} <= set(ref.positions.flatten().tolist())
        holds(f"{where} must have tokens on both sides of position {edge}", both_sides)


@torch.inference_mode()
def compare_run(board: Scoreboard, ref: Reference, model: nn.Module) -> None:
    """Everything that `ref` has against a run of `model`, which has no hooks of ours."""
    inner = model.model
    check_names(ref, len(inner.layers))
    check_dtypes(ref, F32)
    out = model(
        ref.input_ids,
        attention_mask=torch.ones_like(ref.input_ids),
        position_ids=ref.positions,
        output_hidden_states=True,
        output_attentions=True,
        use_cache=True,
    )
    states = out.hidden_states  # what each block was given, then what the last norm gave
    compare_rope(board, ref, inner.rotary_emb, states[0])
    ids = ref.inputs["embed"]
    same = torch.equal(ids, ref.input_ids)
    holds(f"{ref.path.name}: HuggingFace's embedding must be given the prompt's ids", same)
    compare_output(board, ref, "stream, logits", "embed", states[0])
    for i, layer in enumerate(inner.layers):
        compare_block(board, ref, f"blocks.{i}", layer, states[i])
        cache, weights = out.past_key_values.layers[i], out.attentions[i]
        compare_attention(board, ref, f"blocks.{i}.attn", cache.keys, cache.values, weights)
        if i + 1 < len(inner.layers):
            compare_output(board, ref, "stream, logits", f"blocks.{i}", states[i + 1])
    last = f"blocks.{len(inner.layers) - 1}"
    compare_input(board, ref, "norm", ref.outputs[last])
    compare_output(board, ref, "norms", "norm", states[-1])
    compare_output(board, ref, "stream, logits", "logits", out.logits)


def names_on_record(layers: int, eager: bool = True) -> tuple[set[str], set[str]]:
    """Every name that a Reference must have: of inputs, and of outputs."""
    inputs = {"embed", "norm", "rotary_emb"}
    inputs |= {f"blocks.{i}{part}" for i in range(layers) for part in PARTS}
    outputs = inputs - {"rotary_emb"}
    outputs |= {"cos", "sin", "logits", "inverse_frequencies"}
    for what in ("q", "k", "v", "weights") if eager else ():
        outputs |= {f"blocks.{i}.attn.{what}" for i in range(layers)}
    return inputs, outputs


def check_names(ref: Reference, layers: int) -> None:
    """All is on record and nothing else; the five outputs of a block have one shape."""
    where = ref.path.name
    inputs, outputs = names_on_record(layers)
    agree(f"{where}, inputs on record", set(ref.inputs), inputs)
    agree(f"{where}, outputs on record", set(ref.outputs), outputs)
    agree(f"{where}, layers", ref.num_layers, layers)
    for name, tensor in (*ref.inputs.items(), *ref.outputs.items()):
        bare = isinstance(tensor, torch.Tensor) and not tensor.requires_grad
        holds(f"{where}, {name} must be a tensor, without what gradients need", bare)
    shape = ref.outputs["embed"].shape
    for name in (f"blocks.{i}{part}" for i in range(layers) for part in PARTS):
        agree(f"{where}, shape of {name}", ref.outputs[name].shape, shape)


def check_dtypes(ref: Reference, dtype: torch.dtype) -> None:
    """Every output is in `dtype`; HuggingFace keeps the speeds of RoPE in float32."""
    for name, tensor in ref.outputs.items():
        if name != "inverse_frequencies":
            agree(f"{ref.path.name}, dtype of {name}", tensor.dtype, dtype)


def compare_output(
    board: Scoreboard, ref: Reference, row: str, name: str, theirs: torch.Tensor
) -> None:
    """The output that is on record as `name`, in row `row` of the scoreboard."""
    board.compare(ref, f"record: {row}", name, ref.outputs[name], theirs)


def compare_input(board: Scoreboard, ref: Reference, name: str, theirs: torch.Tensor) -> None:
    """The input that is on record as `name`."""
    board.compare(ref, "record: inputs", f"input of {name}", ref.inputs[name], theirs)


def compare_rope(board: Scoreboard, ref: Reference, rotary: nn.Module, x: torch.Tensor) -> None:
    """cos and sin, on record and made for other positions, and the speeds."""
    cos, sin = rotary(x, ref.positions)
    compare_output(board, ref, "rope", "cos", cos)
    compare_output(board, ref, "rope", "sin", sin)
    compare_output(board, ref, "rope", "inverse_frequencies", rotary.inv_freq)
    for shift in (0, 5):
        places = ref.positions + shift
        made = attempt("rope()", ref.rope, places)
        for what, mine, theirs in zip(("cos", "sin"), made, rotary(x, places), strict=True):
            board.compare(ref, "record: rope", f"rope() {shift} further, {what}", mine, theirs)


def compare_block(
    board: Scoreboard, ref: Reference, at: str, layer: nn.Module, x: torch.Tensor
) -> None:
    """A block that was given `x` (B, T, C): its norms, what each part was given, its sum."""
    halfway = x + ref.outputs[f"{at}.attn"]
    normed = layer.input_layernorm(x)
    normed_halfway = layer.post_attention_layernorm(halfway)
    compare_output(board, ref, "norms", f"{at}.attn_norm", normed)
    compare_output(board, ref, "norms", f"{at}.mlp_norm", normed_halfway)
    given = (x, x, normed, halfway, normed_halfway)
    for part, theirs in zip(PARTS, given, strict=True):
        compare_input(board, ref, at + part, theirs)
    whole = halfway + ref.outputs[f"{at}.mlp"]
    compare_output(board, ref, "stream, logits", at, whole)


def compare_attention(
    board: Scoreboard,
    ref: Reference,
    at: str,
    k: torch.Tensor,
    v: torch.Tensor,
    weights: torch.Tensor,
) -> None:
    """k and v as the cache has them, the weights, and q by the weights that follow from it."""
    compare_output(board, ref, "attention", f"{at}.k", k)
    compare_output(board, ref, "attention", f"{at}.v", v)
    compare_output(board, ref, "attention", f"{at}.weights", weights)
    last = last_weights(ref.outputs[f"{at}.q"], k)  # q itself is shown nowhere else
    board.compare(ref, "record: attention", f"{at}, by its q", last, weights[:, :, -1:])


def last_weights(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """The last token's weights, with no mask needed: (B, H, T, D), (B, K, T, D) to (B, H, 1, T)."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = q[:, :, -1:] @ k.mT / q.shape[-1] ** 0.5
    return scores.softmax(-1)
