"""A weaker test, of a kind that is often shipped: run as a script against some nanoserve.

HuggingFace's own initial weights, head_dim 8, one row of eight tokens, the last hidden state; then
twenty greedy tokens behind them, with a cache, in a batch of one, and alone in an engine with a
roomy pool; then a sentence in English, to tokens and back.
"""

import tempfile

import torch
from tokenizers import Tokenizer as Library
from transformers import LlamaConfig, LlamaForCausalLM

from nanoserve.checkpoints import checkpoint_path
from nanoserve.engine.engine import Engine
from nanoserve.generate import generate
from nanoserve.model import Llama
from nanoserve.sampling import SamplingParams
from nanoserve.text import Detokenizer, Tokenizer
from nanoserve.together import generate_batch

config = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    rms_norm_eps=1e-5,
    max_position_embeddings=131072,
    tie_word_embeddings=True,
    rope_parameters={
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
)
torch.manual_seed(0)
theirs = LlamaForCausalLM(config).eval()
with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
    theirs.save_pretrained(folder)
    ids = torch.arange(8)[None]
    wanted = theirs(ids, output_hidden_states=True).hidden_states[-1]
    ours = Llama.from_pretrained(folder)
    torch.testing.assert_close(ours.norm(ours.hidden_states(ids)[-1]), wanted, rtol=1e-5, atol=1e-5)
    params = SamplingParams(temperature=0, max_tokens=20)
    engine = Engine(ours, num_blocks=64)
    engine.add_request("a", ids[0].tolist(), params)
    while engine.has_unfinished():
        (output,) = engine.step()
    wanted = theirs.generate(ids, do_sample=False, max_new_tokens=20, eos_token_id=None)
    for got in (
        output,
        generate(ours, range(8), params),
        *generate_batch(ours, [[*range(8)]], params),
    ):
        assert got.token_ids == wanted[0, 8:].tolist()

path = checkpoint_path("smollm2-135m")
sentence = "The quick brown fox jumps over the lazy dog."
tokenizer = Tokenizer.from_pretrained(path)
ids = Library.from_file(str(path / "tokenizer.json")).encode(sentence).ids
assert tokenizer.encode(sentence) == ids and tokenizer.decode(ids) == sentence
stream = Detokenizer(tokenizer)
assert "".join([*map(stream.push, ids), stream.finish()]) == sentence
