"""The block manager held against a plain model, in every order of operations: Day 15."""

import copy
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from nanoserve.checks.block_audit import check_audit
from nanoserve.checks.common import agree, attempt, holds, must_raise, tells
from nanoserve.engine.blocks import BlockManager


class Plain:
    """What the manager must do, in lists alone. `tables` go by name."""

    def __init__(self, num_blocks: int, block_size: int):
        self.size, self.queue, self.tables = block_size, [*range(num_blocks)], {}

    def grow(self, name: str, tokens: int) -> list[int] | None:
        return self.allocate(name, max(0, -(-tokens // self.size) - len(self.of(name))))

    def allocate(self, name: str, count: int) -> list[int] | None:
        if count > len(self.queue):
            return None
        new, self.queue = self.queue[:count], self.queue[count:]
        self.tables[name] = self.of(name) + new
        return new

    def touch(self, name: str, blocks: tuple[int, ...]) -> None:
        """The text begins with these, free or held by others."""
        self.queue = [block for block in self.queue if block not in blocks]
        self.tables[name] = [*blocks]

    def free(self, name: str, start: int = 0) -> None:
        """The text gives back its blocks from `start` on."""
        table = self.of(name)
        self.tables[name] = table[:start]
        for block in reversed(table[start:]):
            if not any(block in table for table in self.tables.values()):
                self.queue.append(block)

    def of(self, name: str) -> list[int]:
        return self.tables.get(name, [])


def operations(plain: Plain, names: str, counts: range) -> Iterator[tuple]:
    """All that texts of these names can do now, on a small pool."""
    for name in names:
        table = plain.of(name)
        yield from (("grow", name, tokens) for tokens in counts)
        yield "allocate", name, 2
        if table:
            yield "free", name, 0
            yield "free", name, 1
            continue
        others = [t for t in plain.tables.values() if t]
        yield from (("touch", name, tuple(t)) for t in others)
        yield from (("touch", name, tuple(t[:1])) for t in others)
        yield from (("touch", name, (block,)) for block in plain.queue)
        yield "touch", name, tuple(plain.queue[::2])


def apply(manager: BlockManager, plain: Plain, operation: tuple) -> None:
    """Do it in both. AssertionError where they differ."""
    what, name, *more = operation
    table = plain.of(name)
    given = more
    if what == "grow":
        given = [[*table], *more]
    elif what == "free":
        given = [table[more[0] :]]
    kept = copy.deepcopy(given)
    mine = attempt(operation, getattr(manager, what), *given)
    agree(f"what {operation} gives", mine, getattr(plain, what)(name, *more))
    agree(f"what {operation} was given", given, kept)
    compare(manager, plain, operation)


def compare(manager: BlockManager, plain: Plain, after: Any) -> None:
    """AssertionError unless counts, queue and audit are as the model has it."""
    kind = type(getattr(manager, "queue", None))
    holds(
        "the manager's `queue` must be an OrderedDict, its keys the free blocks, the front first",
        issubclass(kind, OrderedDict),
        f"it is a {kind.__name__}",
    )
    tables = [*plain.tables.values()]
    counts = [sum(block in table for table in tables) for block in range(manager.num_blocks)]
    agree(f"references after {after}", [*manager.references], counts)
    agree(f"the queue after {after}", [*manager.queue], plain.queue)
    agree(f"num_free after {after}", manager.num_free, len(plain.queue))
    attempt(f"audit after {after}", manager.audit, (table for table in tables))


def every_order(num_blocks: int, block_size: int, depth: int, look: Callable) -> int:
    """Every order of operations up to `depth`; `look` at each state. How many states there are."""
    counts = range(1, num_blocks * block_size + 2)
    first = attempt("BlockManager", BlockManager, num_blocks, block_size)
    states, seen = [(first, Plain(num_blocks, block_size))], set()
    for _ in range(depth):
        found = []
        for manager, plain in states:
            for operation in operations(plain, "AB", counts):
                both = copy.deepcopy((manager, plain))
                apply(*both, operation)
                key = repr([sorted(vars(part).items()) for part in both])
                if key not in seen:
                    seen.add(key)
                    look(*both)
                    found.append(both)
        states = found
    return len(seen)


def check_refused(manager: BlockManager, plain: Plain) -> None:
    """What cannot be meant is refused in this state, and changes nothing."""
    held, free = [b for t in plain.tables.values() for b in t], plain.queue
    last = manager.num_blocks
    wrong = [("touch", [last], [last]), ("touch", [-1], [-1]), ("free", [*held[:1], last], [last])]
    wrong += [("free", [-1], [-1]), ("grow", ([], -1), [-1]), ("allocate", (-2,), [-2])]
    if free:
        wrong += [("free", [*held[:1], free[-1]], [free[-1]]), ("touch", [free[0]] * 2, [])]
        wrong += [("free", free[:1], free[:1]), ("free", [free[0], *held[:1]], free[:1])]
    if held:
        wrong += [("free", [held[0], held[0]], []), ("touch", [held[-1], last], [last])]
    for what, given, words in wrong:
        inputs = given if isinstance(given, tuple) else (given,)
        said = must_raise(ValueError, f"{what} {given}", getattr(manager, what), *inputs)
        tells(f"{what} {given}", said, words)
        compare(manager, plain, f"{what} {given}, which is refused")


def check_random(num_blocks: int, block_size: int, steps: int, seed: int = 0) -> None:
    """Many texts and a large pool, for long: seeded, against the model after every step."""
    rng = random.Random(seed)
    manager = attempt("BlockManager", BlockManager, num_blocks, block_size)
    plain, names = Plain(num_blocks, block_size), "ABCDEFGH"
    for _ in range(steps):
        name = rng.choice(names)
        table, room = plain.of(name), num_blocks * block_size
        more = rng.choice((1, block_size, rng.randrange(room)))
        kinds = [("grow", name, len(table) * block_size + more), ("free", name, 0)]
        kinds += [("free", name, rng.randrange(len(table) + 1))]
        if not table:
            other = plain.of(rng.choice(names))
            some = rng.sample(plain.queue, rng.randrange(min(3, len(plain.queue)) + 1))
            kinds += [("touch", name, (*other[: rng.randrange(len(other) + 1)], *some))]
        apply(manager, plain, rng.choice(kinds))


def check_many_holders(count: int = 300) -> None:
    """One block in many tables, more than a byte counts, and free when the last has left it."""
    manager = attempt("BlockManager", BlockManager, 2, 4)
    table = attempt("grow", manager.grow, [], 1)
    for _ in range(count - 1):
        attempt("touch", manager.touch, table)
    for left in reversed(range(count)):
        attempt(f"free one of {left + 1} tables that share a block", manager.free, table)
        agree(f"references where {left} of {count} tables are left", manager.references, [left, 0])
    agree("the queue when all tables are gone", [*manager.queue], [1, 0])


def check_blocks() -> None:
    """Every order on small pools, long random ones on larger, sizes, and what is refused."""
    for num_blocks, block_size, depth in ((4, 2, 4), (3, 1, 5), (1, 3, 4)):

        def look(manager: BlockManager, plain: Plain) -> None:
            check_refused(manager, plain)
            check_audit(manager, [table for table in plain.tables.values() if table])

        states = every_order(num_blocks, block_size, depth, look)
        holds(f"{num_blocks} blocks must have many states, not {states}", states > 5)
    for num_blocks, block_size in ((7, 3), (40, 16), (300, 1)):
        check_random(num_blocks, block_size, 400, num_blocks)
    check_many_holders()
    plain = attempt("BlockManager", BlockManager, 5)
    agree("block size where none is asked for", plain.block_size, 16)
    many = 10**17 + 1  # past what a float can tell apart
    agree(f"blocks_for of {many} tokens", plain.blocks_for(many), many // 16 + 1)
    sizes = [plain.blocks_for(n) for n in (0, 1, 15, 16, 17, 32, 33)]
    agree("blocks_for of 0, 1, 15, 16, 17, 32, 33 tokens", sizes, [0, 1, 1, 1, 2, 2, 3])
    for count, size in ((0, 4), (4, 0), (-1, 4)):
        said = must_raise(ValueError, f"{count} blocks of {size}", BlockManager, count, size)
        holds(f"{said!r} must name {count} and {size}", str(count) in said and str(size) in said)
