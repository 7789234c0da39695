"""Which blocks of a pool are whose. No tensor, and no request.

Built in the book: day15. Edit there, then run book/tangle.py.
"""

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence


def check_ids(blocks: Sequence[int], num_blocks: int) -> None:
    """ValueError unless these are blocks of the pool, each once."""
    known = range(num_blocks)
    if foreign := [block for block in blocks if block not in known]:
        raise ValueError(
            f"there are no blocks {foreign}: the pool has {num_blocks}, from 0 to {num_blocks - 1}"
        )
    if len({*blocks}) < len(blocks):
        raise ValueError(f"a block twice in one table: {[*blocks]}")


class BlockManager:
    """Hands out the blocks of a pool, and takes them back.

    A block has as many references as tables hold it. Without one it is
    free, and waits in the queue, the longest waiting first; what it
    holds stays there until it is handed out. Tables belong to callers,
    who append what they are given and forget what they have freed.
    """

    def __init__(self, num_blocks: int, block_size: int = 16):
        if num_blocks < 1 or block_size < 1:
            asked = f"num_blocks {num_blocks} and block_size {block_size}"
            raise ValueError(f"{asked} must both be 1 or more")
        self.num_blocks, self.block_size = num_blocks, block_size
        self.references = [0] * num_blocks
        self.queue = OrderedDict.fromkeys(range(num_blocks))

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds."""
        return len(self.queue)

    def blocks_for(self, tokens: int) -> int:
        """How many blocks hold so many tokens, the last one in part."""
        return -(-tokens // self.block_size)

    def grow(self, table: Sequence[int], tokens: int) -> list[int] | None:
        """Blocks to append to `table`, to hold `tokens` of its text.

        That is all of them, not those that are new, and appending is
        the caller's. [] where the table has blocks enough; None, and
        nothing is taken, where too few are free. ValueError for fewer
        than no tokens.
        """
        if tokens < 0:
            raise ValueError(f"cannot hold {tokens} tokens")
        need = self.blocks_for(tokens) - len(table)
        return self.allocate(max(0, need))

    def allocate(self, count: int) -> list[int] | None:
        """So many free blocks, each with one holder; all, or None."""
        if count < 0:
            raise ValueError(f"cannot hand out {count} blocks")
        if count > self.num_free:
            return None
        return [self.take() for _ in range(count)]

    def touch(self, blocks: Sequence[int]) -> None:
        """One holder more for each; free ones leave the queue.

        They keep what they hold. ValueError for blocks that are not
        there, or twice, before any is touched.
        """
        check_ids(blocks, self.num_blocks)
        for block in blocks:
            if not self.references[block]:
                del self.queue[block]
            self.references[block] += 1

    def free(self, table: Sequence[int]) -> None:
        """One holder less for each, from the tail on.

        ValueError, and nothing is freed, where one is free already.
        """
        check_ids(table, self.num_blocks)
        if idle := [b for b in table if not self.references[b]]:
            raise ValueError(f"blocks {idle} are free already")
        for block in reversed(table):
            self.references[block] -= 1
            if not self.references[block]:
                self.put_back(block)

    def take(self) -> int:
        """The block at the queue's front, which gets its one holder."""
        block, _ = self.queue.popitem(last=False)
        self.references[block] = 1
        return block

    def put_back(self, block: int) -> None:
        """A block that lost its last holder, to the queue's end."""
        self.queue[block] = None

    def audit(self, tables: Iterable[Sequence[int]]) -> None:
        """AssertionError unless the books agree with all the tables."""
        found = disagreements(self.references, self.queue, tables)
        if lines := [*found]:
            raise AssertionError("; ".join(lines))


def disagreements(
    references: Sequence[int],
    queue: Collection[int],
    tables: Iterable[Sequence[int]],
) -> Iterator[str]:
    """Where counts, free queue and tables say different things."""
    held = Counter()
    for i, table in enumerate(tables):
        held.update(table)
        if len({*table}) < len(table):
            yield f"table {i} names a block twice: {[*table]}"
    if foreign := {*held, *queue} - {*range(len(references))}:
        yield f"there are no blocks {sorted(foreign)}"
    for block, count in enumerate(references):
        said = f"block {block} has {count} references"
        if held[block] != count:
            yield f"{said}, tables that hold it: {held[block]}"
        if (block in queue) != (count == 0):
            where = "in" if block in queue else "not in"
            yield f"{said} and is {where} the free queue"
