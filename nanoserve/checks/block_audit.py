"""Books of blocks, spoilt in every way that an audit must see: Day 15."""

import copy
from collections.abc import Callable

from nanoserve.checks.common import holds, must_raise, tells
from nanoserve.engine.blocks import BlockManager


def check_audit(manager: BlockManager, tables: list[list[int]]) -> None:
    """An audit sees every spoilt book, and leaves the book as it is."""
    before = repr(vars(manager))

    def sees(what: str, spoil: Callable, wrong: list | None = None, *blocks: int) -> None:
        other = copy.deepcopy(manager)
        spoil(other)
        given = tables if wrong is None else wrong
        said = must_raise(AssertionError, f"audit, {what}", other.audit, given)
        tells(f"audit, {what}", said, [f"block {block}" for block in blocks])

    def nothing(other: BlockManager) -> None:
        pass

    for block in range(manager.num_blocks):
        for n in (1, -1):
            count = manager.references[block] + n
            what = f"a count of {count} for block {block}"
            sees(what, lambda m, b=block, n=count: m.references.__setitem__(b, n), None, block)
        if block in manager.queue:
            sees(f"block {block} lost", lambda m, b=block: m.queue.pop(b), None, block)
        else:
            sees(f"block {block} freed while held", lambda m, b=block: m.put_back(b), None, block)
    for i, table in enumerate(tables):
        sees("a table unknown to the books", nothing, [*tables, table], *table)
        sees("a table forgotten", nothing, tables[:i] + tables[i + 1 :])
        sees(
            "a block twice in a table", nothing, [*tables[:i], table + table[:1], *tables[i + 1 :]]
        )
    for block, count in enumerate(manager.references):
        if count == 2:  # twice in one of its tables, and not in the other
            first, second = (i for i, table in enumerate(tables) if block in table)
            wrong = [[*table] for table in tables]
            wrong[first].append(block)
            wrong[second].remove(block)
            sees(f"block {block} twice in one table, and in no other", nothing, wrong)
    sees("a table with a block that is not there", nothing, [*tables, [manager.num_blocks]])
    sees("a free block that is not there", lambda other: other.put_back(-1))
    holds("an audit must change nothing", repr(vars(manager)) == before)
