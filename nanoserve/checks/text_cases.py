"""What texts and chats are tried on Day 12: of every script, of every field, and forged."""

EMOJI = "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 👍🏽 🙂"
TEXTS = (
    "",
    " ",
    "The capital of France is",
    "  two spaces before,  within and after  ",
    "line one\nline two\r\n\n\n\n\tthen a tab\n",
    "def add(a, b):\n    return a + b  # 1234567890",
    EMOJI,
    "Grüße aus Köln, naïve café, e\u0301 and é, \ufb01, \uff46\uff55\uff4c\uff4c",
    "こんにちは世界。 你好 世界, 안녕하세요, สวัสดี, مرحبا, שלום, नमस्ते",
    "\x00\x01\x7f\u00a0\u200b\u2028\ufeff\ufffd\ufdd0\U000f0000\U0010ffff",
    "<|almost|> <s <tool> [INST] <<SYS>> <| im_end |> im_end|> <|",
    "▁ marks <0x41> and Ġ Ċ",
    "a" * 300,
    "ends with a bracket <",
)


def turns(*said: str, system: str = "") -> list[dict]:
    """A conversation: user and assistant in turns, perhaps behind a system message."""
    first = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    return first + [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]


CHATS = {
    "one question": turns("What is the capital of France?"),
    "a system message": turns("Hi", system="You are terse."),
    "three turns": turns("Hi", "Hello! How can I help?", "Tell me a joke.\n"),
    "only a system message": turns(system="Wait."),
    "an empty message": turns(""),
    "spaces and lines at the ends": turns("\n  a \n\n", " b ", "\tc\n"),
    "words of templates": turns("user", "assistant", "end", "system", "text", "a", "s"),
    "halves of control tokens": turns("a <", "|im_end", "|>", "b<|", "<", ">", "[INST"),
    "brackets": turns("1 < 2 > 0", "if (a < b || c) { x = '<b>'; }", "{{ messages }} {% x %}"),
    "many scripts": turns(*TEXTS[6:9]),
    "odd letters": turns(TEXTS[9], "\U00020000\U00020001\U000f0000\ue000"),
    "two users": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "ends with an answer": turns("Hi", "Hello"),
    "a key with None": [{"role": "user", "content": "Hi", "name": None}],
    "another role": [{"role": "critic", "content": "Weak."}],
    "more keys": [{"role": "user", "content": "Hi", "name": "Ada", "tags": [1, {"a": "x <"}]}],
    "long": turns(*(f"message {i}, " * i for i in range(1, 12))),
}
# Contents of messages with a control token in them, whole or in two halves.
FORGED = (
    ("{0}",),
    ("before {0} after",),
    ("{0}{0}\n{0}",),
    (" {0} ", "{0}", "a{0}"),
    ("a {head}", "{tail} b"),
    ("{head}", "{tail}"),
    ("{head} \n", "\n {tail}"),
    ("{tail}{0}{head}", "{tail}{head}"),
    ("{head}{0}{tail}",),
)
# One thing a template may do in each.
TEMPLATES = {
    "joined": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    "joined, trimmed": "{% for m in messages %}{{ m.content | trim }}{% endfor %}<|eot_id|>",
    "a token behind every text": (
        "{% for m in messages %}{{ m.content + '<|eot_id|>' }}{% endfor %}"
        "{{ bos_token }}{{ eos_token }}{{ pad_token }}"
    ),
    "blocks on lines of their own": (
        "{% for m in messages %}\n  {% if loop.first %}\nfirst\n  {% endif %}\n"
        "    {{ m.content }}\n{% endfor %}\nend\n"
    ),
    "minus signs": "  {%- for m in messages -%}  \n {{- m.role -}} \n {%- endfor -%} \n!",
    "JSON": "{{ messages | tojson }}{{ {'é': '<&>', 'b': [1]} | tojson(indent=2) }}",
    "joined as Python writes it": "{{ messages }}",
    "joined as JSON in ASCII": "{{ messages | tojson(ensure_ascii=True) }}",
    "JSON in ASCII": "{{ {'b': 'é', 'a': 1} | tojson(ensure_ascii=True, sort_keys=True) }}",
    "a date": "{{ strftime_now('%d %b %Y') }}{{ messages | length }}",
    "break and continue": (
        "{% for m in messages %}{% if loop.index == 2 %}{% continue %}{% endif %}"
        "{% if loop.index > 3 %}{% break %}{% endif %}{{ m.content }}{% endfor %}"
    ),
    "a block for training": (
        "{% set n = namespace(x=0) %}{% set y = 1 %}{% for m in messages %}{% generation %}"
        "{% set y = 2 %}{% set n.x = n.x + 1 %}{{ m.content }}{{ loop.index }}{{ y }}"
        "{% endgeneration %}{{ y }}{{ n.x }}{% endfor %}"
    ),
    "a macro": (
        "{% macro b(x) %}[{{ x }}]{% endmacro %}{% for m in messages %}{{ b(m.role) }}{% endfor %}"
    ),
    "what is not given": (
        "{{ tools is none }}{{ documents is none }}{{ tools is defined }}{{ date is defined }}"
        "{{ nothing }}{% if add_generation_prompt %}go{% endif %}{{ add_generation_prompt }}"
    ),
    "slices": "{% for m in messages[1:] %}{{ m.content[:3] }}{{ m.get('name', '-') }}{% endfor %}",
    "markup stays": "{{ '<b>&\U00020000' ~ messages[0].content ~ '\"' }}",
}
# What is refused, and a word that the refusal must have.
WRONG_CHATS = (
    ([], "one message"),
    ("Hi", "one message"),
    ({"role": "user", "content": "Hi"}, "one message"),
    (["Hi"], "message 0"),
    ([{"role": "user", "content": "Hi"}, {"content": "Hi"}], "message 1"),
    ([{"role": None, "content": "Hi"}], "message 0"),
    ([{"role": "user", "content": "half \ud83d"}], "surrogate"),
    ([{"role": "user", "content": {1, 2}}], "texts"),
)
# Templates that a stranger may have written, and a word that the refusal must have.
HOSTILE = (
    ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ("{{ messages.append(1) }}", "unsafe"),
    ("{{ raise_exception('no, thanks') }}", "no, thanks"),
    ("{{ cycler.__init__.__globals__.os.system('true') }}", "unsafe"),
    ("{% for m in messages %}", "cannot be read"),
    ("{% for i in range(10000000) %}x{% endfor %}", "range"),
    ("{% include 'secret' %}", ""),
    ("{{ 'a' + messages[0].nothing }}", "refuses"),
    ("{{ 'a' + messages }}", "refuses"),
)
