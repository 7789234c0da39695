"""SmolLM2-135M-Instruct out of its GGUF file, as HuggingFace lays out a checkpoint.

transformers can read GGUF too, but needs accelerate for it, takes a tokenizer that does not split
digits, and writes what its version of the day writes. The steps are few, and the same bytes must
come out everywhere, so they are taken here.
"""

import errno
import json
import re
from pathlib import Path

# What is llama.cpp's name for each tensor of a layer, and HuggingFace's.
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

# In the dialect of transformers 5, as the twin's is in the hub's: a reader meets both.
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "dtype": "bfloat16",
    "eos_token_id": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.02,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pad_token_id": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
    "use_cache": True,
    "vocab_size": 49152,
}


def hf_name(name: str) -> str:
    """HuggingFace's name of a tensor from llama.cpp's, as in blk.0.attn_q.weight."""
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{LAYER[parts[2]]}.weight"
    return {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}[parts[0]]


def weights(reader) -> dict:
    """Every tensor by HuggingFace's name, dequantised and rounded to bf16, layer after layer."""
    import torch
    from gguf import dequantize

    heads = {
        "attn_q": CONFIG["num_attention_heads"],
        "attn_k": CONFIG["num_key_value_heads"],
    }
    out = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        n = heads.get(tensor.name.split(".")[-2])
        if n:
            # llama.cpp rotates neighbours (0, 1), (2, 3), ...; HuggingFace rotates (0, D/2), ...
            # so the converter to GGUF interleaved the two halves of each head. This undoes it.
            rows, columns = values.shape
            values = values.reshape(n, rows // n // 2, 2, columns).swapaxes(1, 2)
            values = values.reshape(rows, columns)
        values = torch.from_numpy(values.copy())  # the GGUF file's pages are read-only
        out[hf_name(tensor.name)] = values.to(torch.bfloat16)
    order = {name: i for i, name in enumerate(LAYER.values())}

    def key(name):
        if "layers" not in name:
            return (-1 if "embed" in name else 1 << 30, 0)
        _, _, i, rest = name.split(".", 3)
        return int(i), order[rest.removesuffix(".weight")]

    return {name: out[name] for name in sorted(out, key=key)}


def tokenizer(reader) -> dict[str, dict]:
    """tokenizer.json and tokenizer_config.json: byte-level BPE that takes digits one by one."""

    def field(name):
        return reader.get_field(f"tokenizer.{name}").contents()

    tokens, kinds = field("ggml.tokens"), field("ggml.token_type")
    special = [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind == 3  # a control token, which text can not spell
    ]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    digits = {"type": "Digits", "individual_digits": True}
    bpe = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": [merge.split(" ") for merge in field("ggml.merges")],
    }
    bos, eos, unknown = (tokens[field(f"ggml.{k}_token_id")] for k in ("bos", "eos", "unknown"))
    return {
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": special,
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
            "post_processor": None,
            "decoder": byte_level | {"add_prefix_space": True},
            "model": bpe,
        },
        "tokenizer_config.json": {
            "bos_token": bos,
            "chat_template": field("chat_template"),
            "clean_up_tokenization_spaces": False,
            "eos_token": eos,
            "model_max_length": CONFIG["max_position_embeddings"],
            "pad_token": eos,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": unknown,
        },
    }


def convert(gguf_file: Path, folder: Path) -> None:
    """Write the checkpoint: config, tokenizer, three shards of at most 100 MB and their index.

    Raises OSError where the disk cannot take them.
    """
    from gguf import GGUFReader
    from huggingface_hub import save_torch_state_dict
    from safetensors import SafetensorError

    reader = GGUFReader(gguf_file)
    ids = {k: CONFIG[k] for k in ("bos_token_id", "eos_token_id", "pad_token_id")}
    files = {"config.json": CONFIG, "generation_config.json": ids, **tokenizer(reader)}
    for name, data in files.items():
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    try:
        save_torch_state_dict(weights(reader), folder, max_shard_size="100MB")
    except SafetensorError as error:
        # The library gives a failed write as text only: "I/O error: ... (os error 28)".
        code = re.search(r"os error (\d+)", str(error))
        raise OSError(int(code[1]) if code else errno.EIO, str(error), str(folder)) from error
