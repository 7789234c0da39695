"""The twin of Llama-3.2-1B: its real config and shapes, with generated weights.

The numbers are the same on every machine. torch's normal_ and numpy's standard_normal are not
made for that, so nothing is computed here but table look-ups: Philox, a counter-based generator
defined on integers, gives 16 random bits a weight, and these pick an entry of a table of 65,536
quantiles, rounded to bf16. The quantiles of the normal distribution come from Python's own
float64; a last digit that differs between maths libraries is lost in rounding to 8 bits, and the
sha256 of the file, checked after writing, would tell if once it were not.
"""

import hashlib
import json
import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
from tqdm import tqdm

LAYERS, VOCAB = 2, 1024  # of the small twin; the full one has the real 16 and 128,256
CHUNK = 1 << 22  # weights written at a time: bounded memory for the 2.5 GB of --full

# Llama-3.2-1B's config.json, in the hub's own dialect.
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 128256,
}


def config(full: bool) -> dict:
    """config.json of the twin: the real one, or the real one with 2 layers and a small vocabulary.

    The special tokens stay the first two of the last 256 ids, as in the real vocabulary.
    """
    if full:
        return dict(CONFIG)
    small = {"num_hidden_layers": LAYERS, "vocab_size": VOCAB}
    return CONFIG | small | {"bos_token_id": VOCAB - 256, "eos_token_id": VOCAB - 255}


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """Every tensor of the file by HuggingFace's name, matrices as (out, in)."""
    d, ff = config["hidden_size"], config["intermediate_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    out = {"model.embed_tokens.weight": (config["vocab_size"], d), "model.norm.weight": (d,)}
    for i in range(config["num_hidden_layers"]):
        out |= {
            f"model.layers.{i}.{name}.weight": shape
            for name, shape in {
                "input_layernorm": (d,),
                "self_attn.q_proj": (q, d),
                "self_attn.k_proj": (kv, d),
                "self_attn.v_proj": (kv, d),
                "self_attn.o_proj": (d, q),
                "post_attention_layernorm": (d,),
                "mlp.gate_proj": (ff, d),
                "mlp.up_proj": (ff, d),
                "mlp.down_proj": (d, ff),
            }.items()
        }
    return dict(sorted(out.items()))


def table(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The 65,536 values that a weight of this tensor can take, as bf16 bits (uint16).

    Not degenerate: gains of norms lie uniformly in 0.5..1.5, embeddings are standard normal,
    linear weights normal with std 1/sqrt(fan_in). With gains of 1 and tiny weights, a norm that
    was never loaded or a rope scaling left out would not show in any result.
    """
    steps = range(1 << 16)
    if len(shape) == 1:
        values = [0.5 + (i + 0.5) / 65536 for i in steps]
    else:
        std = 1.0 if "embed" in name else 1 / math.sqrt(shape[1])
        normal = NormalDist(sigma=std).inv_cdf
        values = [normal((i + 0.5) / 65536) for i in steps]
    bits = np.array(values, dtype="<f4").view("<u4").astype("<u8")
    return ((bits + 0x8000) >> 16).astype("<u2")  # to the nearest; none lies halfway


def chunks(name: str, shape: tuple[int, ...]):
    """The tensor's weights in order as bf16 bits, CHUNK at a time.

    Seeded by the name alone: the small twin's layers, and its rows of the embedding, are the
    full one's.
    """
    seed = hashlib.sha256(name.encode()).digest()[:16]
    generator = np.random.Philox(key=int.from_bytes(seed, "big"))
    values = table(name, shape)
    left = math.prod(shape)
    while left:
        n = min(left, CHUNK)
        bits = generator.random_raw((n + 3) // 4).astype("<u8", copy=False).view("<u2")
        yield values[bits[:n]]
        left -= n


def write(folder: Path, full: bool) -> None:
    """Write config.json, generation_config.json and model.safetensors (bf16, tied, no index)."""
    settings = config(full)
    ids = {k: settings[k] for k in ("bos_token_id", "eos_token_id")}
    for name, data in {"config": settings, "generation_config": ids}.items():
        text = json.dumps(data, indent=2) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8", newline="\n")
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes(settings).items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    bar = tqdm(total=end, unit="B", unit_scale=True, disable=None)  # on a terminal only
    with open(folder / "model.safetensors", "wb") as file, bar:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes(settings).items():
            for chunk in chunks(name, shape):
                file.write(chunk.data)
                bar.update(chunk.nbytes)
