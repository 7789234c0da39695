"""What tokens add to a text, in bytes: the way from ids to characters.

Built in the book: day12. Edit there, then run book/tangle.py.
"""

import codecs
import json
import re
from collections.abc import Callable
from numbers import Integral
from typing import Any

# Decoders for which a token's text depends on its being first, no more.
STREAMED = ("ByteLevel", "ByteFallback", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece")


def byte_letters() -> dict[str, int]:
    """The byte that each letter of a byte-level vocabulary stands for.

    What can be printed stands for itself, and for the rest are letters
    past 255: letter 288 is a space. As in OpenAI's GPT-2.
    """
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in kept]
    letters = {chr(byte): byte for byte in kept}
    return letters | {chr(256 + n): byte for n, byte in enumerate(rest)}


def woven(library: Any, tokens: set[str]) -> set[str]:
    """Those of `tokens` that letters make, too: by merges, or alone.

    They are words like any other, and none may take their names away.
    In Unigram's list words have a score, and control tokens 0.
    """
    words = tokens & library.get_vocab(with_added_tokens=False).keys()
    model = json.loads(library.to_str())["model"] if words else {}
    parts = {word for word in words if len(word) == 1}
    if isinstance(scored := model.get("vocab"), list):
        parts = {word for word, score in scored if score < 0}
    for merge in model.get("merges", ()):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        parts |= {*pair, "".join(pair)}
    return words & parts


class Spelling:
    """The bytes that each token adds to a text: often no whole character.

    In a byte-level vocabulary each letter of a token is a byte. In
    SentencePiece's <0xE4> is one, and other tokens are characters, as all
    are elsewhere. ValueError for a decoder that cannot be streamed.
    """

    def __init__(self, library: Any):
        self.library = library
        steps = [library.decoder] if library.decoder else []
        if steps:  # the library writes down what they are in JSON
            made = json.loads(steps[0].__getstate__())
            steps = made.get("decoders", [made])
        kinds = {step["type"] for step in steps}
        if odd := sorted(kinds.difference(STREAMED)):
            raise ValueError(f"a decoder {odd} must see the whole text")
        self.letters = byte_letters() if "ByteLevel" in kinds else {}
        self.hex = "ByteFallback" in kinds
        size = library.get_vocab_size()
        texts = (i for i in range(size) if self.alone(i).strip())
        self.other = next(texts, 0)  # to put a token behind

    def alone(self, *ids: int) -> str:
        """The library's text of these ids."""
        return self.library.decode(ids, skip_special_tokens=False)

    def known(self, token_id: int) -> bool:
        """Whether there is such a token. ValueError for what is no id."""
        whole = isinstance(token_id, Integral)
        if isinstance(token_id, bool) or not whole or token_id < 0:
            raise ValueError(f"no token has the id {token_id!r}")
        if token_id >= 2**32:  # more than the library can look up
            return False
        return self.library.id_to_token(token_id) is not None

    def bytes_of(self, token_id: int, first: bool = False) -> bytes:
        """A known token's; `first` where it begins the text."""
        token = self.library.id_to_token(token_id)
        if self.letters:
            plain = self.library.model.id_to_token(token_id)
            if plain and self.letters.keys() >= set(plain):
                return bytes(self.letters[letter] for letter in plain)
            return token.encode()  # an added one, spelt as it is read
        text = self.alone(token_id)
        if self.hex and re.fullmatch("<0x[0-9A-Fa-f]{2}>", token):
            return bytes.fromhex(token[3:5]) if text or not first else b""
        if not first:
            start = len(self.alone(self.other))
            text = self.alone(self.other, token_id)[start:]
        return text.encode()

    def characters(self) -> Callable[[bytes, bool], str]:
        """A function of new bytes, and whether they are the last ones.

        It gives the characters that are whole. What is no UTF-8 becomes
        U+FFFD, a piece at once, or byte by byte where bytes are tokens.
        """
        how = "surrogateescape" if self.hex else "replace"
        decoder = codecs.getincrementaldecoder("utf-8")(how)

        def take(data: bytes, last: bool) -> str:
            text = decoder.decode(data, last)
            return re.sub("[\ud800-\udfff]", "\ufffd", text)

        return take
