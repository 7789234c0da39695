"""What stands after each of Weeks 2 to 4, with its days, and the two threads of Day 19."""

from itertools import pairwise

from draw import Drawing


def week2() -> str:
    """From text to text, several at once: every piece that stands after Week 2, with its day."""
    d = Drawing(480, 474, "What stands after Week 2: from text to text, several at once")
    left, right, w, h = 72, 294, 184, 58
    rows = [  # y, words, module, page
        (16, "Tokenizer", "text.py, Day 12", "day12"),
        (114, "pack: one row", "batch.py, Day 13", "day13"),
        (212, "Llama", "model.py, Day 7", "day07"),
        (310, "process, sample", "sampling.py, Day 9", "day09"),
        (402, "Detokenizer", "text.py, Day 12", "day12"),
    ]
    beside = [(212, "KVCache", "one each, Day 10", "day10"), (310, "cost.py", "Day 11", "day11")]
    middle = left + w / 2
    for behind in (8, 4):
        d.box(right + behind, 212 - behind, 170, h, "ns-box ns-done")
    for x, width, boxes in ((left, w, rows), (right, 170, beside)):
        for y, words, where, page in boxes:
            d.link(page)
            d.box(x, y, width, h, "ns-box ns-done")
            d.text(x + width / 2, y + 19, words, "ns-text ns-strong", 19)
            d.text(x + width / 2, y + 42, where, "ns-muted", 17)
            d.end_link()
    for (y, *_), (below, *_) in pairwise(rows):
        d.wire((middle, y + h), (middle, below))
    for y, words in ((94, "ids"), (192, "ids, positions"), (290, "scores")):
        d.text(middle + 10, y, words, "ns-muted", 17, "start")
    d.wire((left, 339), (24, 339), (24, 143), (left, 143), kind="ns-lit-line")
    for y, words in ((277, "a token"), (296, "each")):
        d.text(32, y, words, "ns-muted", 17, "start")
    for y, words in ((45, "text, messages"), (431, "text, as it comes")):
        d.text(right + 14, y, words, "ns-text", 17, "start")
    d.wire((right + 6, 45), (left + w, 45))
    d.wire((left + w, 431), (right + 6, 431))
    d.wire((left + w, 241), (right, 241))
    d.box(right, 114, 170, h, "ns-box ns-dash")
    d.text(right + 85, 133, "scheduler, pages", "ns-muted", 18)
    d.text(right + 85, 156, "Week 3", "ns-muted", 17)
    return d.svg()


def linked(d: Drawing, rows: list[tuple], w: float, h: float) -> None:
    """A box for each piece, which leads to its day: x, y, words, where it stands, page."""
    for x, y, words, where, page in rows:
        d.link(page)
        d.box(x, y, w, h, "ns-box ns-done")
        d.text(x + w / 2, y + 19, words, "ns-text ns-strong", 19)
        d.text(x + w / 2, y + 42, where, "ns-muted", 15)
        d.end_link()


def week3() -> str:
    """The engine: every piece that stands after Week 3, with its day."""
    d = Drawing(480, 560, "The engine after Week 3: from requests to texts, many at once")
    left, right, w, h = 40, 268, 184, 58
    rows = [  # x, y, words, where, page
        (left, 16, "LLM, Engine", "engine/, Day 16", "day16"),
        (left, 112, "two queues", "scheduler.py, Day 16", "day16"),
        (left, 208, "Scheduler", "one rule, Days 16, 17", "day17"),
        (left, 304, "Runner", "runner.py, Day 16", "day16"),
        (left, 400, "process, sample", "sampling.py, Day 9", "day09"),
        (left, 486, "Detokenizer", "text.py, Day 12", "day12"),
        (right, 112, "BlockManager", "blocks.py, Day 15", "day15"),
        (right, 208, "PrefixCache", "prefix.py, Day 18", "day18"),
        (right, 304, "Llama", "model.py, Day 7", "day07"),
        (right, 400, "KVPool", "pool.py, Day 14", "day14"),
    ]
    linked(d, rows, w, h)
    middle, other = left + w / 2, right + w / 2
    told = ["prompt, params", "", "Plan", "scores of the last", "ids"]
    below = [y for x, y, *_ in rows if x == left]
    for (y, under), words in zip(pairwise(below), told, strict=True):
        d.wire((middle, y + h), (middle, under))
        d.text(middle + 8, (y + h + under) / 2 - 1, words, "ns-muted", 15, "start")
    d.wire((left, 429), (18, 429), (18, 237), (left, 237), kind="ns-lit-line")
    d.wire((left + w, 237), (right, 237))
    d.wire((other, 208), (other, 112 + h))
    d.wire((left + w, 333), (right, 333))
    d.wire((other, 304 + h), (other, 400))
    d.text(other + 8, 380, "attend", "ns-muted", 15, "start")
    d.text(right + 10, 45, "text, or ids", "ns-text", 17, "start")
    d.wire((right + 4, 45), (left + w, 45))
    d.text(right + 10, 515, "text, as it comes", "ns-text", 17, "start")
    d.wire((left + w, 515), (right + 4, 515))
    return d.svg()


def week4() -> str:
    """The server: every piece that stands after Week 4, with its day, and the way of a request."""
    d = Drawing(480, 524, "The server after Week 4: the way in, the way back, and a hang-up")
    left, right, w, h = 40, 268, 184, 58
    rows = [  # x, y, words, where, page
        (left, 58, "Gate", "gate.py, Day 20", "day20"),
        (left, 158, "answer", "app.py, Day 20", "day20"),
        (left, 258, "AsyncEngine", "worker.py, Day 19", "day19"),
        (left, 358, "EngineThread", "thread.py, Day 19", "day19"),
        (left, 458, "Engine", "engine/, Day 16", "day16"),
        (right, 58, "frames", "stream.py, Day 20", "day20"),
        (right, 158, "Writer", "writer.py, Day 20", "day20"),
        (right, 258, "Answer", "answer.py, Day 19", "day19"),
        (right, 358, "Metrics", "metrics.py, Day 21", "day21"),
    ]
    linked(d, rows, w, h)
    middle, other = left + w / 2, right + w / 2
    told = [(16, "a client asks"), (116, "a body"), (216, "ids"), (316, "commands")]
    for y, words in (*told, (416, "step()")):
        d.wire((middle, y + 8 if y == 16 else y), (middle, y + 42))
        d.text(middle + 8, y + 20, words, "ns-muted", 15, "start")
    for y, words in ((16, "a client reads"), (116, "chunks"), (216, "the newest")):
        d.wire((other, y + 42), (other, y + 8 if y == 16 else y))
        d.text(other + 8, y + 20, words, "ns-muted", 15, "start")
    d.wire((left + w, 374), (246, 374), (246, 300), (right, 300))
    d.wire((left + w, 400), (right, 400))
    d.wire((right, 272), (left + w, 272), kind="ns-lit-line")
    d.text(246, 247, "abort", "ns-muted", 15)
    d.text(right, 440, "counts what is told", "ns-muted", 15, "start")
    return d.svg()


def threads() -> str:
    """Two threads and the two queues between them: what is whose on Day 19."""
    d = Drawing(480, 330, "The event loop, the engine's thread, and the two queues between them")
    d.box(8, 8, 172, 314, "ns-group", 12)
    d.box(300, 8, 172, 314, "ns-group ns-lit-line", 12)
    for x, words in ((94, "event loop"), (386, "engine's thread")):
        d.text(x, 30, words, "ns-text ns-strong", 18)
    rows = [  # x, y, words, note
        (20, 52, "submit()", "refuses, or asks"),
        (20, 152, "deliver()", "each its newest"),
        (20, 250, "Answer", "one slot each"),
        (312, 52, "obey()", "add, abort, close"),
        (312, 152, "engine.step()", "alone, in here"),
        (312, 250, "tell()", "all of a step"),
    ]
    for x, y, words, note in rows:
        d.box(x, y, 148, 58)
        d.text(x + 74, y + 20, words, "ns-text ns-strong", 17)
        d.text(x + 74, y + 42, note, "ns-muted", 16)
    for x, y, below in ((94, 210, 250), (386, 110, 152), (386, 210, 250)):
        d.wire((x, y), (x, below))
    d.wire((168, 81), (312, 81))
    d.text(240, 62, "commands", "ns-text", 16)
    d.text(240, 100, "a queue", "ns-muted", 16)
    d.wire((312, 279), (240, 279), (240, 181), (168, 181))
    d.text(240, 300, "Mailbox", "ns-text", 16)
    d.text(240, 142, "one wake-up", "ns-muted", 15)
    d.text(240, 162, "for many", "ns-muted", 15)
    return d.svg()
