"""What a cache of prefixes must find on paper, counted from the slots: Day 18."""

from collections.abc import Collection
from typing import Any

from nanoserve.checks.common import agree, holds
from nanoserve.checks.paper_texts import known_by
from nanoserve.engine.request import Request


class Hits:
    """Looks at the hits of a Paper: they must be what was there, and none may be passed over.

    A slot's hash names all that stands before it, so a block's last one says whose beginning the
    block is.
    """

    def __init__(self, paper: Any):
        there = hasattr(paper.blocks, "found")
        holds(f"{paper.what}: a cache that is asked for must be there", there)
        self.paper, self.first = paper, {}  # what each had at its first admission
        self.ends, self.known, self.evicted = set(), {}, False

    def found(self) -> Collection[int]:
        """The blocks that somebody could find: the only free ones that may keep what they hold."""
        return self.paper.blocks.found.values()

    def remember(self) -> None:
        """What is there before a step."""
        slots, size = self.paper.slots, self.paper.size
        self.ends = {*slots[size - 1 :: size]} - {None}
        self.known = dict(self.paper.blocks.found)

    def there(self, request: Request) -> int:
        """So many tokens of its beginning were in full blocks, the last token left out."""
        size, known = self.paper.size, len(request.tokens)
        chain = known_by(request.tokens, salt=request.cache_salt)
        for end in range(size, known, size):
            if chain[end - 1] not in self.ends:
                return end - size
        return (known - 1) // size * size

    def check(self, what: str, request: Request, waited: bool) -> int:
        """What may be computed of one that was behind with everything: what was there, if it runs.

        Less only where blocks were handed out to others: then all is read again.
        """
        if request not in self.paper.scheduler.running:
            return 0
        name, hit, most = f"{what}: {request.request_id}", request.computed, self.there(request)
        now = self.paper.blocks.found
        self.evicted |= any(now.get(p) != block for p, block in self.known.items())
        holds(f"{name} must find whole blocks", hit % self.paper.size == 0, f"{hit} tokens")
        holds(f"{name} must find no more than is there", hit <= most, f"{hit} of {most} tokens")
        if not self.evicted:
            agree(f"{name}: tokens that it finds", hit, most)
        first = self.first.setdefault(request, hit)
        agree(f"{name}: cached, from its first admission on", request.cached, first)
        return hit

    def held(self, request: Request) -> int:
        """Blocks of its beginning that others hold now: it needs no free ones for those."""
        blocks = self.paper.blocks
        hit = blocks.match(request.tokens, request.cache_salt)
        return sum(blocks.references[block] > 0 for block in hit)
