"""The larger drawings: the block, the life of a request, the harness, what stands after a week."""

from itertools import pairwise

from draw import Drawing


def block() -> str:
    """The block from the bottom up, each of its six pieces a link to the day that builds it."""
    d = Drawing(480, 560, "One transformer block, and the day that builds each piece")
    d.box(10, 66, 460, 414, "ns-group", 14)
    d.text(456, 462, "one block of 16", "ns-muted", 14, "end")
    spine = 160
    rows = [  # y, words, day, note beside it
        (418, "RMSNorm", "day04", "(B, T, C)"),
        (316, "attention: GQA", "day06", "32 query heads, 8 KV heads"),
        (206, "RMSNorm", "day04", "(B, T, C)"),
        (146, "SwiGLU", "day05", "C to F and back"),
    ]
    d.wire((spine, 514), (spine, 458))
    d.wire((spine, 418), (spine, 356))
    d.wire((spine, 316), (spine, 287))
    d.wire((spine, 265), (spine, 246))
    d.wire((spine, 206), (spine, 186))
    d.wire((spine, 146), (spine, 119))
    d.wire((spine, 97), (spine, 44))
    for low, high in ((486, 276), (256, 108)):
        d.wire((spine, low), (36, low), (36, high), (spine - 11, high))
    for y, words, page, note in rows:
        d.link(page)
        d.label(60, y, 200, 40, words, "ns-box", "ns-text ns-strong", 16)
        d.text(274, y + 12, f"Day {int(page[-1])}", "ns-muted", 14, "start")
        d.text(274, y + 29, note, "ns-muted", 13, "start")
        d.end_link()
    d.link("day04")
    d.label(76, 354, 72, 28, "RoPE", "ns-box", "ns-text ns-strong", 14)
    d.text(274, 376, "Day 4, turns q and k", "ns-muted", 14, "start")
    d.end_link()
    for y in (276, 108):
        d.add(spine, y)
    d.link("day07")
    d.text(190, 108, "residuals and the whole block: Day 7", "ns-text", 14, "start")
    d.end_link()
    d.label(60, 514, 200, 36, "embedding", "ns-box", "ns-text ns-strong", 16)
    d.link("day02")
    d.text(274, 523, "config and weights: Day 2", "ns-text", 14, "start")
    d.end_link()
    d.link("day03")
    d.text(274, 542, "loader: Day 3", "ns-text", 14, "start")
    d.end_link()
    d.label(60, 8, 200, 36, "next block, or the logits", "ns-box", "ns-muted", 14)
    return d.svg()


def engine() -> str:
    """The life of a request in a serving engine, with what Week 1 builds lit."""
    d = Drawing(900, 380, "The life of a request through a serving engine")
    d.label(20, 30, 120, 56, "request\n\"The capital of\"", "ns-box", "ns-text", 14)
    d.label(180, 30, 120, 56, "tokenizer", "ns-box", "ns-text", 15)
    d.label(340, 30, 220, 56, "scheduler\nwho runs in this step", "ns-box", "ns-text", 15)
    d.label(640, 30, 240, 56, "detokenize and stream\n\" France is Paris.\"")
    d.wire((140, 58), (180, 58))
    d.wire((300, 58), (340, 58))
    d.box(20, 130, 860, 236, "ns-group", 12)
    d.text(168, 152, "one step of the loop: prefill takes the whole prompt, decode one token a "
                    "request", "ns-muted", 14, "start")
    d.wire((450, 86), (450, 112), (82, 112), (82, 180))
    d.label(36, 180, 92, 60, "embed", "ns-box", "ns-text", 15)
    d.box(168, 172, 324, 76, "ns-box ns-lit", 10)
    d.text(330, 198, "16 blocks", "ns-on ns-strong", 17)
    d.text(330, 224, "RMSNorm, GQA + RoPE, RMSNorm, SwiGLU", "ns-on", 14)
    d.label(532, 180, 120, 60, "norm, logits", "ns-box", "ns-text", 15)
    d.label(692, 180, 120, 60, "sampler", "ns-box", "ns-text", 15)
    d.wire((128, 210), (168, 210))
    d.wire((492, 210), (532, 210))
    d.wire((652, 210), (692, 210))
    d.wire((752, 180), (752, 86))
    d.text(764, 112, "a token", "ns-muted", 13, "start")
    d.wire((812, 210), (860, 210), (860, 350), (82, 350), (82, 240))
    d.text(846, 338, "the token goes round again", "ns-muted", 13, "end")
    for i in range(8):
        d.box(340 + i * 27, 284, 22, 22, "ns-box ns-done" if i < 5 else "ns-box ns-dash", 3)
    d.wire((378, 248), (378, 284))
    d.wire((432, 284), (432, 248))
    d.text(568, 295, "KV cache, in pages", "ns-muted", 14, "start")
    d.text(168, 270, "Week 1 builds this", "ns-text ns-strong", 13, "start")
    return d.svg()


def harness() -> str:
    """The harness: HF's activations are recorded, HF is freed, then ours are compared."""
    d = Drawing(900, 330, "How the harness compares our pieces with HuggingFace's model")
    d.text(180, 24, "1. record", "ns-text ns-strong", 16)
    d.box(20, 40, 320, 190, "ns-group", 12)
    d.text(180, 64, "transformers' Llama: fp32, CPU, eager", "ns-muted", 13)
    for i, words in enumerate(("RMSNorm", "attention", "RMSNorm", "MLP")):
        y = 80 + i * 36
        d.label(40, y, 140, 28, words, "ns-box", "ns-text", 14)
        d.wire((180, y + 14), (232, y + 14))
        d.text(240, y + 14, "hook", "ns-muted", 13, "start")
    d.text(450, 24, "2. keep, and free", "ns-text ns-strong", 16)
    d.label(372, 92, 156, 86, "inputs and outputs\nby name,\nevery layer", "ns-box ns-done",
            "ns-text", 14)
    d.wire((340, 135), (372, 135))
    d.text(130, 262, "HF's model is freed\nbefore ours is loaded", "ns-muted", 13)
    d.text(720, 24, "3. compare", "ns-text ns-strong", 16)
    d.box(560, 40, 320, 190, "ns-group", 12)
    d.text(720, 64, "nanoserve, fed HF's own inputs", "ns-muted", 13)
    for i, words in enumerate(("RMSNorm", "Attention", "RMSNorm", "SwiGLU")):
        d.label(640, 80 + i * 36, 160, 28, words, "ns-box ns-lit", "ns-on ns-strong", 14)
    d.wire((528, 135), (560, 135))
    verdict = "torch.testing.assert_close\n|mine - theirs| <= 1e-5 + 1e-5 |theirs|"
    d.label(250, 262, 400, 54, verdict, "ns-box ns-done", "ns-text ns-strong")
    d.wire((720, 230), (720, 289), (650, 289))
    d.wire((450, 178), (450, 262))
    return d.svg()


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
    for x, y, words, where, page in rows:
        d.link(page)
        d.box(x, y, w, h, "ns-box ns-done")
        d.text(x + w / 2, y + 19, words, "ns-text ns-strong", 19)
        d.text(x + w / 2, y + 42, where, "ns-muted", 15)
        d.end_link()
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
    for x, y, words, where, page in rows:
        d.link(page)
        d.box(x, y, w, h, "ns-box ns-done")
        d.text(x + w / 2, y + 19, words, "ns-text ns-strong", 19)
        d.text(x + w / 2, y + 42, where, "ns-muted", 15)
        d.end_link()
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
