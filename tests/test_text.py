"""Text in and out on whatever hypothesis thinks of: any Unicode, any ids, any stops, any cut."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanoserve.checks.text import controls
from nanoserve.checks.text_made import FAMILIES, save
from nanoserve.checks.text_stops import small, wanted
from nanoserve.reference import transformers
from nanoserve.text import Detokenizer, Tokenizer

ROOT = Path(__file__).resolve().parent.parent
BYTES = small(["ab", "abc", "aé", "<a", "ba"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FEW = settings(max_examples=40)


@pytest.fixture(scope="module", params=FAMILIES)
def both(request, tmp_path_factory) -> tuple[Tokenizer, object]:
    """Ours and HuggingFace's, of a made family."""
    home: Path = save(tmp_path_factory.mktemp("family") / "made", request.param)
    return Tokenizer.from_pretrained(home), transformers.AutoTokenizer.from_pretrained(home)


def streamed(tokenizer: Tokenizer, ids: list[int], stop=()) -> tuple[str, bool]:
    """All that is sent, and whether a stop ended it."""
    stream = Detokenizer(tokenizer, stop)
    return "".join(map(stream.push, ids)) + stream.finish(), stream.stopped


@FEW
@given(text=TEXT)
def test_any_text_has_huggingfaces_ids_and_streams_as_it_decodes(both, text):
    ours, theirs = both
    if any(name in text for name in ours.control.values()):
        return
    ids = ours.encode(text)
    assert ids == theirs(text).input_ids
    whole = theirs.decode(ids, skip_special_tokens=True)
    assert streamed(ours, ids) == (whole, False) and ours.decode(ids) == whole


@FEW
@given(data=st.data())
def test_any_ids_stream_as_they_decode(both, data):
    ours, theirs = both
    ids = data.draw(st.lists(st.integers(0, len(theirs) + 2)))
    text, _ = streamed(ours, ids)
    assert text == ours.decode(ids)
    if not ours.spelling.hex:  # there HuggingFace drops good letters beside broken bytes
        assert text == theirs.decode(ids, skip_special_tokens=True)


@FEW
@given(raw=st.binary(), data=st.data())
def test_any_bytes_with_any_stops_end_where_a_reader_of_letters_would(raw, data):
    alphabet = sorted(BYTES.spelling.letters.items(), key=lambda pair: pair[1])
    ids = [BYTES.library.token_to_id(alphabet[byte][0]) for byte in raw]
    whole = raw.decode("utf-8", "replace")
    parts = st.sampled_from([whole[a : a + n] for a in range(len(whole)) for n in (1, 2, 5)] or "x")
    stops = data.draw(st.lists(st.one_of(parts, st.text("ab\ufffdé", min_size=1)), max_size=3))
    assert streamed(BYTES, ids, stops) == wanted(whole, tuple(stops), True)


@FEW
@given(said=st.lists(st.lists(st.integers(0, 99), max_size=6), min_size=1, max_size=3))
def test_no_message_of_pieces_of_names_makes_a_control_token(both, said):
    ours, _ = both
    names = sorted(ours.control.values())
    cuts = [name[a:b] for name in names for a, b in ((0, 2), (0, -1), (1, None), (3, 6), (0, None))]
    cuts += [" ", "\n", "x"]
    texts = ["".join(cuts[i % len(cuts)] for i in part) for part in said]
    roles = ("user", "assistant")

    def chat(texts: list[str]) -> list[str]:
        messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
        return controls(ours, ours.chat(messages))

    assert chat(texts) == chat(["no harm"] * len(texts))
    for text in texts:
        assert controls(ours, ours.encode(text)[len(ours.encode("")) :]) == []


def test_without_the_extra_the_module_loads_and_says_what_is_missing(tmp_path):
    home = save(tmp_path / "made", "byte level")
    code = (
        "import sys; sys.modules.update(dict.fromkeys({barred!r}))\n"
        "from nanoserve.text import Tokenizer\n"
        "try:\n    Tokenizer.from_pretrained({home!r}).chat([dict(role='user', content='Hi')])\n"
        "except ImportError as error:\n    print(error.name, error)"
    )
    for package in ("tokenizers", "jinja2"):
        text = code.format(barred=[package], home=str(home))
        command = [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"{package} ") and "'nanoserve[text]'" in done.stdout


@pytest.mark.parametrize(
    "answer",
    [
        "<think>a</think>\n\nyes",
        "<think>\na\n</think>\n\n yes ",
        "x</think>yes",
        "</think>\n",
        "a <think> b </think> c</think>\td",
    ],
)
def test_a_template_that_drops_thoughts_and_strips_the_rest(tmp_path, answer):
    """What keeps a message from making a control token must not keep a template from its work."""
    home = save(tmp_path, "byte level")
    ours, theirs = Tokenizer.from_pretrained(home), transformers.AutoTokenizer.from_pretrained(home)
    roles, said = ("user", "assistant", "user"), ("q", answer, "r </think> s")
    chat = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
    wanted = theirs.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert ours.written(chat, True).replace(ours.prefix, "") == wanted


def test_added_words_are_spelt_as_they_are_read(tmp_path):
    """HuggingFace decodes "đem" as "\\x11em": github.com/huggingface/tokenizers/issues/1915."""
    words = ["đem", "ilÖveyou", "café", "Ġx", "two words"]
    home = save(tmp_path, "byte level")
    library = transformers.AutoTokenizer.from_pretrained(home).backend_tokenizer
    library.add_tokens(words)
    library.save(str(home / "tokenizer.json"))
    ours = Tokenizer.from_pretrained(home)
    for word in words:
        text = f"a {word} b Ġ é\n"
        ids = ours.encode(text, control=True)
        assert library.token_to_id(word) in ids
        assert ours.decode(ids) == text == streamed(ours, ids)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_word_that_merges_make_may_be_an_added_token_too(tmp_path, family):
    """A pad token that is a letter, a role that was added: a text has them, and so has a merge."""
    home = save(tmp_path, family)
    file = home / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token": "."}))
    theirs = transformers.AutoTokenizer.from_pretrained(home)
    theirs.backend_tokenizer.add_tokens(["server", "user", "a"])
    theirs.backend_tokenizer.save(str(home / "tokenizer.json"))
    ours = Tokenizer.from_pretrained(home)
    assert ours.encode("a server. a user, a") == theirs("a server. a user, a").input_ids
    chat = [{"role": "user", "content": "a server. a user, a"}]
    wanted = theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert ours.chat(chat) == wanted
