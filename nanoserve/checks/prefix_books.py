"""The cache's books against a plain one in which every text is spelled out: Day 18.

Twice: with the hash, and with one of a single bit, where all texts collide.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nanoserve.checks.common import agree, attempt, holds
from nanoserve.checks.prefix_by_hand import check_audit, check_by_hand, check_compared
from nanoserve.engine import prefix as module
from nanoserve.engine.prefix import Prefix, PrefixCache

Text = tuple[str | None, tuple[int, ...]]  # its salt, and its tokens


@contextmanager
def hashed(function: Callable) -> Iterator[None]:
    """With another hash of the chain."""
    right, module.chain_hash = module.chain_hash, function
    try:
        yield
    finally:
        module.chain_hash = right


def one_bit(before: int, tokens: tuple) -> int:
    """A hash that every second text shares."""
    return hash((before, tokens)) >> 7 & 1


class Plain:
    """What the cache must do, in lists and whole texts. `tables` and `texts` go by name."""

    def __init__(self, num_blocks: int, size: int):
        self.size, self.queue = size, [*range(num_blocks)]
        self.tables: dict[str, list[int]] = {}
        self.texts: dict[str, Text] = {}
        self.said: dict[int, Text] = {}  # of each full block, up to its end
        self.found: dict[Text, int] = {}

    def match(self, salt: str | None, tokens: tuple[int, ...]) -> list[int]:
        hit = []
        for end in range(self.size, len(tokens), self.size):
            if (salt, tokens[:end]) not in self.found:
                break
            hit.append(self.found[salt, tokens[:end]])
        return hit

    def begin(self, name: str, salt: str | None, tokens: tuple[int, ...]) -> list[int] | None:
        hit = self.match(salt, tokens)
        kept = [block for block in self.queue if block not in hit]
        need = -(-len(tokens) // self.size) - len(hit)
        if need > len(kept):
            return None
        self.queue, self.texts[name] = kept, (salt, tokens)
        self.tables[name] = hit + [self.take() for _ in range(need)]
        return self.tables[name]

    def take(self) -> int:
        block = self.queue.pop(0)
        if self.found.get(self.said.pop(block, None)) == block:
            self.found = {text: b for text, b in self.found.items() if b != block}
        return block

    def publish(self, name: str, computed: int) -> None:
        salt, tokens = self.texts[name]
        for i, block in enumerate(self.tables[name][: computed // self.size]):
            if block not in self.said:
                self.said[block] = salt, tokens[: (i + 1) * self.size]
                self.found.setdefault(self.said[block], block)

    def end(self, name: str) -> None:
        for block in reversed(self.tables.pop(name)):
            if any(block in table for table in self.tables.values()):
                continue
            text = self.said.get(block)
            if text and self.found.setdefault(text, block) == block:
                self.queue.append(block)
            else:
                self.said.pop(block, None)
                self.queue.insert(0, block)


def spelled(prefix: Prefix) -> Text:
    """All tokens of a chain, and the salt that it begins with."""
    tokens = ()
    while prefix.parent is not None:
        tokens, prefix = tuple(prefix.tokens) + tokens, prefix.parent
    return (prefix.tokens or (None,))[0], tokens


def compare(cache: PrefixCache, plain: Plain, after: str) -> None:
    """AssertionError unless counts, queue, and what can be found are as the model has it."""
    tables = [*plain.tables.values()]
    counts = [sum(block in table for table in tables) for block in range(cache.num_blocks)]
    agree(f"references after {after}", [*cache.references], counts)
    agree(f"the queue after {after}", [*cache.queue], plain.queue)
    agree(f"found after {after}", {spelled(p): b for p, b in cache.found.items()}, plain.found)
    held = {b: spelled(p) for b, p in enumerate(cache.holds) if p is not None}
    agree(f"what blocks hold after {after}", held, plain.said)
    attempt(f"audit after {after}", cache.audit, (table for table in tables))


def check_random(num_blocks: int, size: int, steps: int, seed: int) -> int:
    """Texts that often begin alike come, are read in parts, written on, and end. How many hit."""
    draw = random.Random(seed)
    cache, plain = attempt("PrefixCache", PrefixCache, num_blocks, size), Plain(num_blocks, size)
    hits = 0
    for _ in range(steps):
        name = draw.choice("ABCD")
        table = [*plain.tables.get(name, ())]
        if name not in plain.tables:
            # Two letters and few lengths: nearly every text has met its like.
            length = draw.randint(1, draw.choice((3, num_blocks)) * size)
            text = tuple(draw.choice((7, 7, 7, 8)) for _ in range(length))
            salt = draw.choice((None, None, "7"))
            after, hit = f"{name} begins with {text}", cache.match(list(text), salt)
            agree(f"hits when {after}", hit, plain.match(salt, text))
            if plain.begin(name, salt, text) is None:
                continue
            cache.touch(hit)
            agree(f"the table when {after}", hit + cache.grow(hit, length), plain.tables[name])
            hits += bool(hit)
        elif draw.random() < 0.4:
            plain.end(name)
            after = f"{name} ends"
            attempt(after, cache.free, table)
        else:
            salt, text = plain.texts[name]
            computed = draw.randint(0, len(text))
            plain.publish(name, computed)
            after = f"{computed} tokens of {name} are written"
            attempt(after, cache.publish, plain.tables[name], list(text), computed, salt)
        compare(cache, plain, after)
    return hits


def check_books() -> None:
    """All of it, with the hash and with one of a single bit."""
    check_by_hand()
    check_audit()
    check_compared()
    for function in (module.chain_hash, one_bit):
        with hashed(function):
            for seed, (num_blocks, size) in enumerate(((4, 1), (6, 2), (9, 3), (5, 2))):
                hits = check_random(num_blocks, size, 250, seed)
                holds(f"some texts must hit in {num_blocks} blocks of {size}", hits > 5, f"{hits}")
