"""The cache's books on a few blocks that can be counted, and books that were falsified: Day 18."""

from collections.abc import Callable

from nanoserve.checks.common import agree, attempt, holds, must_raise
from nanoserve.engine.prefix import PrefixCache


def check_by_hand() -> None:
    """Few enough blocks to count: hits by length, who is handed out first, and duplicates."""
    cache, text = PrefixCache(8, 16), [*range(100, 200)]
    table = cache.grow([], 100)
    for computed, wanted in ((15, 0), (16, 1), (17, 1), (95, 5), (100, 6)):
        cache.publish(table, text, computed)
        agree(f"hits after {computed} tokens are written", len(cache.match(text)), wanted)
    for length, wanted in ((1, 0), (15, 0), (16, 0), (17, 1), (31, 1), (32, 1), (33, 2), (99, 6)):
        agree(f"hits of {length} tokens", cache.match(text[:length]), table[:wanted])
    agree("hits of a text that differs in one token", cache.match([0, *text[1:]]), [])
    agree("hits of another's second block", cache.match([*range(16), *text[16:]]), [])
    agree("hits with a salt", cache.match(text, "mine"), [])
    attempt("a text's end", cache.free, table)
    # The seventh block was not full, the eighth never used; then the text's end, then its head.
    agree("the queue after its end", [*cache.queue], [table[6], 7, *table[5::-1]])
    agree("hits of a free text", cache.match(text), table[:6])
    cache.grow([], 3 * 16)
    agree("hits when three blocks are handed out", cache.match(text), table[:5])
    cache = PrefixCache(8, 2)
    one, other = cache.grow([], 4), cache.grow([], 4)
    for each in (one, other):  # two equal texts in one step
        cache.publish(each, [1, 2, 3, 4], 4)
    agree("hits of two equal texts", cache.match([1, 2, 3, 4, 5]), one)
    attempt("a duplicate's end", cache.free, other)
    agree("the queue after a duplicate's end", [*cache.queue], [*other, *range(4, 8)])
    cache.grow([], 8)
    agree("hits when the duplicate is handed out", cache.match([1, 2, 3, 4, 5]), one)
    cache = PrefixCache(4, 2)
    table = cache.grow([], 6)
    cache.publish(table, [1, 23, 3, 4, 5, 6], 6)
    agree("hits of tokens with the same digits", cache.match([12, 3, 0]), [])
    for part in (table[:1], table[1:]):  # its head goes back before its tail
        attempt("a text's end, in parts", cache.free, part)
    cache.grow([], 4)
    agree("hits of a text without its beginning", cache.match([1, 23, 3, 4, 5, 6, 7]), [])


def check_audit() -> None:
    """Books that were falsified are found out."""
    falsify: dict[str, Callable[[PrefixCache], object]] = {
        "two texts exchanged": lambda c: c.found.update(
            zip(list(c.found), reversed(list(c.found.values())), strict=True)
        ),
        "a text found that no block holds": lambda c: c.holds.__setitem__(0, None),
        "a free block's text forgotten": lambda c: c.found.popitem(),
        "a block lost": lambda c: c.queue.popitem(),
    }
    for what, act in falsify.items():
        cache = PrefixCache(6, 2)
        table = cache.grow([], 4)
        cache.publish(table, [1, 2, 3, 4], 4)
        cache.free(table)
        attempt("audit of sound books", cache.audit, [])
        act(cache)
        must_raise(AssertionError, f"audit with {what}", cache.audit, [])


class Counted(int):
    """A token that counts how often one is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return int(self) == other

    __hash__ = int.__hash__


def check_compared(blocks: int = 30) -> None:
    """A text of n blocks compares each once or twice, not n * n: equal chains are one object."""
    cache = PrefixCache(64, 1)

    def text() -> list[int]:
        return [Counted(i) for i in range(blocks + 1)]

    for what in ("publish", "publish, by a duplicate", "match"):
        Counted.compared = 0
        if what == "match":
            cache.match(text())
        else:
            cache.publish(cache.grow([], blocks), text(), blocks)
        said = f"{what}, {blocks} blocks of a token: at most {2 * blocks} may be compared, so "
        said += "go on from the text in `holds`, not from an equal one"
        holds(said, Counted.compared <= 2 * blocks, f"{Counted.compared} were")
