"""The larger drawings of Week 1: the block, the life of a request, the harness."""

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
