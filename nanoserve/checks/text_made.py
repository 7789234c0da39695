"""Small tokenizers of three families, made by the library itself, each with a template: Day 12."""

import json
from pathlib import Path

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

WORDS = (
    "The server reads a text, cuts it into tokens, and answers with tokens. "
    "A user may write anything: <b>bold</b>, a | b, [list], {'key': 1}, 3.14, end of text. "
    "Der Zug fährt um 7 Uhr. Où est la gare? Привет, мир. こんにちは世界。 你好 世界 "
    "def add(a, b):\n    return a + b\n\n\n"
) * 3
QUIET = {"show_progress": False}
HEADERS = (  # in the manner of Llama 3.2
    "{{- bos_token }}{%- set date = strftime_now('%Y') if date is not defined else date %}\n"
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}\n"
    "{%- else %}{%- set system = 'Year ' + date %}{%- endif %}\n"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + system + '<|eot_id|>' }}\n"
    "{%- for message in messages %}\n"
    "    {%- set said = message['content'] | trim %}\n"
    "    {%- if '</think>' in said %}{%- set said = said.split('</think>')[-1] | trim %}\n"
    "    {%- endif %}\n"
    "    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}\n"
    "    {{- said + '<|eot_id|>' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n<think>' }}\n"
    "{%- endif %}\n"
)
BRACKETS = (  # in the manner of Llama 2
    "{{ bos_token }}{% for message in messages %}\n"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant must take turns') }}{% endif %}\n"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}\n"
    "{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}\n"
    "{% endfor %}"
)
BARS = (  # role by role from pieces, as in Phi's
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def trained(tokenizer: Tokenizer, trainer) -> Tokenizer:
    """A tokenizer with a vocabulary learnt from WORDS."""
    tokenizer.train_from_iterator([WORDS], trainer)
    return tokenizer


def byte_level() -> tuple[Tokenizer, dict]:
    """As Llama 3's: bytes, names of control tokens beside the vocabulary, bos by a template."""
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained(learnt, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, **QUIET))
    data = json.loads(learnt.to_str())
    data["model"]["ignore_merges"] = True
    made = Tokenizer.from_str(json.dumps(data))
    made.decoder = decoders.ByteLevel()
    names = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    made.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    made.add_tokens(["<think>", "</think>", "\n\n\n", "世界"])
    bos = made.token_to_id(names[0])
    made.post_processor = processors.TemplateProcessing(
        single=[names[0], "$A"], special_tokens=[(names[0], bos)]
    )
    return made, {"bos_token": names[0], "eos_token": names[3], "chat_template": HEADERS}


def pieces() -> tuple[Tokenizer, dict]:
    """As Llama 2's: characters with a mark for a space, and bytes for what is none of them."""
    names, byte_names = ["<unk>", "<s>", "</s>"], [f"<0x{i:02X}>" for i in range(256)]
    learnt = Tokenizer(models.BPE())
    spaces = normalizers.Replace(" ", "▁")
    learnt.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    learnt.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    more = {"special_tokens": [*names, *byte_names]} | QUIET
    trained(learnt, trainers.BpeTrainer(vocab_size=800, limit_alphabet=70, **more))
    model = json.loads(learnt.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    made = Tokenizer(
        models.BPE(model["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    made.normalizer = learnt.normalizer
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    made.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A"], special_tokens=[("<s>", made.token_to_id("<s>"))]
    )
    ends = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": False}
    return made, ends | {"chat_template": BRACKETS}


def unigram() -> tuple[Tokenizer, dict]:
    """Pieces with scores, without bytes; names of control tokens are pieces among them."""
    names = ["<unk>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    learnt = Tokenizer(models.Unigram())
    learnt.pre_tokenizer = pre_tokenizers.Metaspace()
    known = {"special_tokens": names, "unk_token": "<unk>"} | QUIET
    made = trained(learnt, trainers.UnigramTrainer(vocab_size=160, **known))
    made.decoder = decoders.Metaspace()
    return made, {"unk_token": "<unk>", "eos_token": "<|end|>", "chat_template": BARS}


FAMILIES = {"byte level": byte_level, "pieces and bytes": pieces, "pieces": unigram}


def save(folder: Path, family: str) -> Path:
    """A folder with the two files of a tokenizer of that family."""
    tokenizer, settings = FAMILIES[family]()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return folder
