"""Work that need not be done twice: full blocks, found by their text.

Built in the book: day18. Edit there, then run book/tangle.py.
"""

from collections.abc import Iterable, Sequence

from nanoserve.engine.blocks import BlockManager
from nanoserve.engine.plan import Plan
from nanoserve.engine.request import Request
from nanoserve.engine.scheduler import Scheduler


def chain_hash(before: int, tokens: tuple) -> int:
    """Of a block's tokens, and the hash of all that stands before."""
    return hash((before, tokens))


class Prefix:
    """A text, from its beginning to the end of a full block.

    `tokens` are those of its last block, `parent` is the text before
    them. The hash says where to look for it; two are the same where all
    their tokens are.
    """

    __slots__ = "hash", "parent", "tokens"

    def __init__(self, parent: "Prefix | None", tokens: Sequence):
        self.parent, self.tokens = parent, tuple(tokens)
        self.hash = chain_hash(parent.hash if parent else 0, self.tokens)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        one = self
        while one is not other:  # most chains are soon the same object
            if type(one) is not type(other) or one.tokens != other.tokens:
                return False
            one, other = one.parent, other.parent
        return True


def beginning(salt: str | None) -> Prefix:
    """What all texts with this salt begin with: nothing, or the salt."""
    return Prefix(None, () if salt is None else (salt,))


class Books(BlockManager):
    """A block manager that knows what is in its full blocks.

    `holds` has the text of each block that is full and written, `found`
    leads back from a text to one block that holds it. A free block
    keeps both until it is handed out.
    """

    def __init__(self, num_blocks: int, block_size: int = 16):
        super().__init__(num_blocks, block_size)
        self.holds: list[Prefix | None] = [None] * num_blocks
        self.found: dict[Prefix, int] = {}

    def audit(self, tables: Iterable[Sequence[int]]) -> None:
        """As ever; and what can be found is there, in one block."""
        super().audit(tables)
        for block in self.queue:
            held = self.holds[block]
            if held is not None and self.found.get(held) != block:
                raise AssertionError(f"nobody finds free block {block}")
        for prefix, block in self.found.items():
            if self.holds[block] is not prefix:
                raise AssertionError(f"block {block} holds another text")


class PrefixCache(Books):
    """Finds a text's blocks again, as long as nobody else has them."""

    def match(self, tokens: Sequence[int], salt: str | None = None) -> list[int]:
        """Blocks that hold the beginning of these tokens, in order.

        The last token is in none of them: it must be read, for the
        scores behind it. Nothing is taken.
        """
        prefix, hit, size = beginning(salt), [], self.block_size
        for start in range(0, len(tokens) - size, size):
            prefix = Prefix(prefix, tokens[start : start + size])
            block = self.found.get(prefix)
            if block is None:
                break
            prefix = self.holds[block]  # the same object for all
            hit.append(block)
        return hit

    def publish(
        self,
        table: Sequence[int],
        tokens: Sequence[int],
        computed: int,
        salt: str | None = None,
    ) -> None:
        """Let others find the blocks that `computed` tokens fill."""
        size, holds = self.block_size, self.holds
        first = full = computed // size
        while first and holds[table[first - 1]] is None:
            first -= 1
        prefix = holds[table[first - 1]] if first else beginning(salt)
        for i in range(first, full):
            prefix = Prefix(prefix, tokens[i * size : (i + 1) * size])
            block = self.found.setdefault(prefix, table[i])
            prefix = self.holds[block] or prefix  # one for duplicates
            holds[table[i]] = prefix

    def take(self) -> int:
        """The longest free block, which is nobody's text from now on."""
        block = super().take()
        prefix, self.holds[block] = self.holds[block], None
        if prefix is not None and self.found[prefix] == block:
            del self.found[prefix]
        return block

    def put_back(self, block: int) -> None:
        """To the queue's end, or its front where nobody would find it."""
        super().put_back(block)
        prefix = self.holds[block]
        if prefix is None or self.found.setdefault(prefix, block) != block:
            self.holds[block] = None
            self.queue.move_to_end(block, last=False)


class CachingScheduler(Scheduler):
    """A scheduler whose requests begin behind what is in the pool.

    Its `blocks` are a PrefixCache.
    """

    def start(self, request: Request) -> bool:
        """Blocks for one that waits: what holds its beginning, and new.

        False, and nothing is touched, where too few are free.
        """
        blocks, known = self.blocks, len(request.tokens)
        hit = blocks.match(request.tokens, request.cache_salt)
        idle = sum(not blocks.references[block] for block in hit)
        need = blocks.blocks_for(known) - len(hit)
        if need > blocks.num_free - idle:
            return False
        blocks.touch(hit)
        request.table = hit
        request.computed = len(hit) * blocks.block_size
        if request.cached is None:  # later hits are its own work
            request.cached = request.computed
        return self.grow(request)

    def update(self, plan: Plan, ids: Sequence[int]) -> list[Request]:
        """As ever; and what is full and written can be found."""
        for share in plan.shares:
            request, end = share.request, share.start + len(share.ids)
            if not request.finish_reason:
                given = request.tokens, end, request.cache_salt
                self.blocks.publish(request.table, *given)
        return super().update(plan, ids)
