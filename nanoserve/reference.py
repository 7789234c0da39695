"""HuggingFace's own model as the judge of ours.

Built in the book: day02. Edit there, then run book/tangle.py.
"""

from contextlib import contextmanager
from functools import reduce
from os import PathLike
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import nn
from transformers.masking_utils import eager_mask
from transformers.models.llama import modeling_llama

from nanoserve.comparison import Scoreboard, compare

__all__ = ["Reference", "Scoreboard", "compare"]

PROMPTS = (
    "When a request reaches the server, its text is cut into tokens, "
    "and every token becomes a vector. The vectors go through the layers "
    "one after another. In 1998 the library closed.",
    "def mean(values):\n    total = 0\n    for value in values:\n"
    "        total += value\n    return total / len(values)\n\n"
    "print(mean([1, 2, 3, 4]))\n# It prints 2.5, not 2.",
)


def encoder(file: Path):
    """What turns a text into all of its ids, and no padding."""
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library has no class for it
        raise ValueError(
            f"{file} is no tokenizer that can be read: {error}. Fetch it "
            "again, or move it away: without one, made-up ids are compared"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer.encode


def prompt(path: Path, config) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and positions, each (B, T), to compare a checkpoint on.

    With a tokenizer, two texts of 41 tokens from position 0. Without one,
    three rows of 48 seeded ids, which start at position 0, just before a
    sixteenth of the context, and at its end. Less where less fits.
    """
    file = path / "tokenizer.json"
    if file.is_file():
        encode = encoder(file)
        texts = [encode(text).ids for text in PROMPTS]
        length = min(41, *map(len, texts))
        if not length or max(map(max, texts)) >= config.vocab_size:
            raise ValueError(
                f"{file} is another model's: it gives no ids, or some "
                f"past vocab_size {config.vocab_size}. Move it away"
            )
        ids = torch.tensor([text[:length] for text in texts])
        return ids, torch.arange(length).expand_as(ids)
    context = config.max_position_embeddings
    length = min(48, context)
    seeded = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (3, length), generator=seeded)
    starts = [0, context // 16 - length // 2, context - length]
    starts = torch.tensor(starts).clamp(min=0)
    return ids, starts[:, None] + torch.arange(length)


def our_name(theirs: str) -> str:
    """HuggingFace's name of a module or parameter, in our words."""
    for old, new in (
        ("model.", ""),
        ("layers.", "blocks."),
        ("embed_tokens", "embed"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "mlp_norm"),
        ("self_attn", "attn"),
    ):
        theirs = theirs.replace(old, new)
    return theirs


RECORDED = (
    nn.Embedding,
    modeling_llama.LlamaRotaryEmbedding,
    modeling_llama.LlamaDecoderLayer,
    modeling_llama.LlamaRMSNorm,
    modeling_llama.LlamaAttention,
    modeling_llama.LlamaMLP,
    nn.RMSNorm,
)


def recorded_attention(module, q, k, v, mask, scaling, **kwargs):
    """HuggingFace's eager attention; keeps its inputs and its weights."""
    outputs, name = module.recorded
    if q.dtype == torch.float64:
        mix, weights = exact_attention(q, k, v, mask, scaling)
    else:
        mix, weights = modeling_llama.eager_attention_forward(
            module, q, k, v, mask, scaling, **kwargs
        )
    for what, tensor in zip("qkv", (q, k, v), strict=True):
        outputs[f"{name}.{what}"] = tensor
    outputs[f"{name}.weights"] = weights
    return mix, weights


def exact_attention(q, k, v, mask, scaling):
    """Attention in float64; HuggingFace's goes down to float32 inside."""
    identity = torch.eye(k.shape[2], dtype=v.dtype).expand(*k.shape[:2], -1, -1)
    mix, weights = (
        nn.functional.scaled_dot_product_attention(q, k, x, mask, scale=scaling, enable_gqa=True)
        for x in (v, identity)
    )
    return mix.transpose(1, 2).contiguous(), weights


def widen(model: nn.Module) -> None:
    """Put torch's RMSNorm for HuggingFace's, which goes to float32."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, modeling_llama.LlamaRMSNorm):
                wide = nn.RMSNorm(len(child.weight), child.variance_epsilon, dtype=torch.float64)
                wide.weight = child.weight
                setattr(module, name, wide)


@contextmanager
def plain_torch():
    """float32 and the CPU by default, whatever a notebook has set."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)


def stored_dtype(path: Path) -> torch.dtype:
    """The narrowest dtype that holds every stored value exactly."""
    dtypes = []
    for file in path.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            names = tensors.keys()
            dtypes += [tensors.get_tensor(name).dtype for name in names]
    return reduce(torch.promote_types, dtypes)


def load_model(path: Path, dtype: torch.dtype, attention: str) -> nn.Module:
    """HuggingFace's model of the checkpoint in `path`, in `dtype`."""
    # The public way to q and k after RoPE: the model hands them on.
    ours = "nanoserve_recorded"
    transformers.AttentionInterface.register(ours, recorded_attention)
    transformers.AttentionMaskInterface.register(ours, eager_mask)
    widened = dtype == torch.float32
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path,
        dtype=stored_dtype(path) if widened else dtype,
        attn_implementation=ours if attention == "eager" else attention,
        local_files_only=True,
    )
    if widened:
        # Copied as stored, the parameters let go of the file before
        # they take float32's room.
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        model.float()
    if dtype == torch.float64:
        widen(model)
    return model.eval()


class Reference:
    """What HuggingFace computes on a fixed prompt, by our names.

    The model is loaded once, run once under hooks, and freed: only
    activations stay. `inputs` and `outputs` map "embed", "blocks.3",
    "blocks.3.attn_norm", "blocks.3.attn", "blocks.3.mlp_norm",
    "blocks.3.mlp" and "norm" to tensors (B, T, C). `outputs` also has q
    (B, H, T, D) and k (B, K, T, D) after RoPE, v and the weights (B, H,
    T, T) of each attention ("blocks.3.attn.q"), "cos" and "sin" (B, T,
    D), "logits" (B, T, vocab_size) and "inverse_frequencies" (D/2,).

    `dtype` float64 stands for exact arithmetic. With `attention` other
    than "eager", there are no q, k, v and weights. `keep_parameters`
    fills `parameters`. `input_ids`, `positions` (B, T) replace the prompt.
    """

    @plain_torch()
    def __init__(
        self,
        path: str | PathLike,
        dtype: torch.dtype = torch.float32,
        attention: str = "eager",
        keep_parameters: bool = False,
        input_ids: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ):
        self.path = Path(path)
        model = load_model(self.path, dtype, attention)
        self.config = model.config
        self.num_layers = model.config.num_hidden_layers
        if input_ids is None:
            input_ids, usual = prompt(self.path, model.config)
            positions = usual if positions is None else positions
        elif positions is None:
            positions = torch.arange(input_ids.shape[1])
        # Copies: the caller may go on counting in place.
        self.input_ids = input_ids.clone()
        self.positions = positions.expand_as(input_ids).clone()
        self.inputs, self.outputs = {}, {}
        self.run(model)
        self.rotary = model.model.rotary_emb
        self.outputs["inverse_frequencies"] = self.rotary.inv_freq
        self.parameters = {}
        if keep_parameters:
            for name, parameter in model.named_parameters():
                self.parameters[our_name(name)] = parameter.detach()

    def run(self, model: nn.Module) -> None:
        """One pass over the prompt, with every hook in its place."""
        hooks = []
        for name, module in model.named_modules():
            if isinstance(module, RECORDED):
                hook = self.recorder(our_name(name))
                hooks.append(module.register_forward_hook(hook, with_kwargs=True))
            if isinstance(module, modeling_llama.LlamaAttention):
                module.recorded = self.outputs, our_name(name)
        # Without a mask, gaps in positions would split rows.
        mask, places = torch.ones_like(self.input_ids), self.positions
        try:
            with torch.inference_mode():
                out = model(self.input_ids, mask, position_ids=places, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        self.outputs["logits"] = out.logits

    def recorder(self, name: str):
        """A forward hook that keeps a module's input and output."""

        def hook(module, args, kwargs, output):
            given = args[0] if args else kwargs["hidden_states"]
            self.inputs[name] = given
            if isinstance(module, modeling_llama.LlamaRotaryEmbedding):
                self.outputs["cos"], self.outputs["sin"] = output
            else:  # an attention gives its weights too
                several = isinstance(output, tuple)
                self.outputs[name] = output[0] if several else output

        return hook

    def rope(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """HuggingFace's cos and sin (B, T, D) at `positions` (B, T).

        In the dtype of those on record.
        """
        return self.rotary(self.outputs["cos"], positions)
