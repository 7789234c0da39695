"""The drawing of the last page: all that stands, room by room, each piece a link to its day."""

from itertools import pairwise

from draw import Drawing

# Where a room begins, its height, its name, and its pieces: words, day.
ROOMS = (
    (62, 96, "server/", (("API, stream", 20), ("loop, thread", 19), ("metrics, load", 21))),
    (182, 170, "engine/", (
        ("scheduler", 16), ("preemption", 17), ("prefix cache", 18),
        ("pages", 14), ("blocks", 15), ("a step ahead", 24),
    )),
    (376, 170, "one text, a few", (
        ("tokenizer", 12), ("greedy", 8), ("sampling", 9),
        ("KV cache", 10), ("its cost", 11), ("several", 13),
    )),
    (570, 170, "the model", (
        ("config", 2), ("loader", 3), ("norm, RoPE", 4),
        ("SwiGLU", 5), ("attention", 6), ("Llama", 7),
    )),
    (764, 96, "kernels/", (("norm, mlp", 22), ("attention", 23), ("few texts", 25))),
)  # fmt: skip
WIDTH, LEFT, W, H, STEP = 480, 22, 134, 58, 74


def whole() -> str:
    """From a client down to the card, with the judge and the clock beside all of it."""
    d = Drawing(WIDTH, 938, "What stands after 26 days: from the client to the kernels")
    d.text(WIDTH / 2, 24, "clients of OpenAI's API, or LLM(...)", "ns-text", 17)
    d.wire((WIDTH / 2, 36), (WIDTH / 2, 60))
    for (y, h, *_), (below, *_) in pairwise(ROOMS):
        d.wire((WIDTH / 2, y + h), (WIDTH / 2, below))
    for y, h, name, pieces in ROOMS:
        d.box(8, y, 464, h, "ns-group", 12)
        d.text(20, y + 13, name, "ns-muted", 15, "start")
        for k, (words, day) in enumerate(pieces):
            x, top = LEFT + (W + 17) * (k % 3), y + 26 + STEP * (k // 3)
            d.link(f"day{day:02d}")
            d.box(x, top, W, H, "ns-box ns-done")
            d.text(x + W / 2, top + 20, words, "ns-text ns-strong", 17)
            d.text(x + W / 2, top + 42, f"Day {day}", "ns-muted", 15)
            d.end_link()
    for x, words, note, day in ((8, "the judge", "HuggingFace, on all days", 1),
                                (246, "the clock", "Days 11, 21 and 26", 26)):
        d.link(f"day{day:02d}")
        d.box(x, 874, 226, 56, "ns-box" + (" ns-lit-line" if day == 26 else " ns-done"))
        d.text(x + 113, 892, words, "ns-text ns-strong", 17)
        d.text(x + 113, 914, note, "ns-muted", 15)
        d.end_link()
    return d.svg()
