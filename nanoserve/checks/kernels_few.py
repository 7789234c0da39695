"""One more token of a few texts, whole, against HuggingFace's model and its cache: Day 25."""

import random
from collections.abc import Sequence
from unittest.mock import patch

import torch

from nanoserve.checks.common import attempt, holds, must_raise
from nanoserve.checks.kernels_decode_made import DEVICE, heads, made
from nanoserve.comparison import Scoreboard
from nanoserve.engine.pool import KVPool
from nanoserve.kernels import decode
from nanoserve.kernels.attention import Reading, paged_attention
from nanoserve.kernels.decode import FewTexts
from nanoserve.kernels.fused import FusedLlama
from nanoserve.model import Llama
from nanoserve.reference import transformers

SIZE = 4  # of a page
# Of made models: heads, KV heads, their size, a tied head; the texts' lengths so far, new tokens.
MADE = (
    (heads(3, 1, 12, tied=False), (5, 0, 9), 1),
    (heads(4, 2, 16, tied=True), (3, 14, 0, 8), 1),
    (heads(1, 1, 48, tied=True), (11,), 2),
)


class Texts:
    """Texts of HuggingFace's, each with a cache, and a pool that holds what these do.

    All else in the pool is NaN, and the tables are in no order.
    """

    def __init__(self, theirs: torch.nn.Module, model: Llama, lengths: Sequence[int]):
        self.theirs, self.lengths, config = theirs, [*lengths], model.config
        drawn = torch.Generator().manual_seed(len(lengths))
        vocab = config.vocab_size
        self.ids = torch.randint(vocab, (len(lengths), 20), generator=drawn).to(DEVICE)
        width = 20 // SIZE
        blocks = [*range(len(lengths) * width + 1)]
        random.Random(len(lengths)).shuffle(blocks)
        self.tables = torch.tensor(blocks[:-1], dtype=torch.int32).view(-1, width).to(DEVICE)
        self.rows = [*range(len(lengths))][::-1]  # the text i has row rows[i] of the tables
        self.pool = KVPool(config, len(blocks), SIZE, device=DEVICE)
        self.pool.k.fill_(torch.nan), self.pool.v.fill_(torch.nan)
        self.caches = [transformers.DynamicCache(config=theirs.config) for _ in lengths]
        for i, length in enumerate(lengths):
            if length:
                theirs(self.ids[i : i + 1, :length], past_key_values=self.caches[i], use_cache=True)
                for n, layer in enumerate(self.caches[i].layers):
                    slots = self.slots(i, range(length))
                    self.pool.k[n][slots] = layer.keys[0].transpose(0, 1)
                    self.pool.v[n][slots] = layer.values[0].transpose(0, 1)

    def slots(self, i: int, places: range) -> list[int]:
        """Where the pool has these places of a text."""
        table = self.tables[self.rows[i]].tolist()
        return [table[p // SIZE] * SIZE + p % SIZE for p in places]

    def reading(self) -> Reading:
        """One new token for each, as the card is told; there is room for a text more."""
        B = len(self.lengths)
        spans = torch.zeros(4, B + 1, dtype=torch.int32)
        spans[:, :B] = torch.tensor([range(B), [1] * B, self.lengths, self.rows])
        tiles = torch.stack([torch.arange(B), torch.zeros(B)], 1).int()
        return Reading(self.tables, spans.to(DEVICE), tiles.to(DEVICE), 1)

    def newest(self) -> torch.Tensor:
        """Each row's newest token."""
        newest = torch.zeros(len(self.rows), dtype=torch.int64, device=DEVICE)
        for i, (row, length) in enumerate(zip(self.rows, self.lengths, strict=True)):
            newest[row] = self.ids[i, length]
        return newest

    def theirs_next(self) -> torch.Tensor:
        """HuggingFace's scores of a token more (B, V), each text alone with its cache."""
        found = []
        for i, length in enumerate(self.lengths):
            one = self.ids[i : i + 1, length : length + 1]
            found.append(self.theirs(one, past_key_values=self.caches[i], use_cache=True).logits[0])
        self.lengths = [length + 1 for length in self.lengths]
        return torch.cat(found)


class Cuts:
    """In a `with`: into how many parts the step has attention cut the keys, layer by layer."""

    def __init__(self):
        self.parts: list[int] = []

    def __enter__(self) -> "Cuts":
        self.seen = patch.object(decode, "paged_attention", self.attend)
        self.seen.start()
        return self

    def __exit__(self, *_) -> None:
        self.seen.stop()

    def attend(self, q, k, v, reading, size, parts=1, each=0, tile=0):
        self.parts.append(parts)
        return paged_attention(q, k, v, reading, size, parts, each, tile)


@torch.inference_mode()
def check_few(board: Scoreboard) -> None:
    """One to four texts of unlike lengths, token by token; keys in one part and in 32."""
    for n, (variant, lengths, steps) in enumerate(MADE):
        theirs, model = made(variant)
        texts, most = Texts(theirs, model, lengths), len(lengths) + n % 2
        few = attempt("FewTexts", FewTexts, FusedLlama(model, 64), texts.pool, most)
        for step in range(steps):
            short = len(lengths) > 1 or step > 0
            given = texts.reading(), texts.newest(), short
            with Cuts() as cuts:
                mine = attempt("FewTexts.scores", few.scores, *given)
            whole = all(parts == 1 for parts in cuts.parts)
            holds(f"with {short=}, keys {'in one part' if short else 'in parts'}", whole == short)
            what = f"B {len(lengths)}, head_dim {model.config.head_dim}, step {step}"
            board.compare(None, "scores of few texts", what, mine.clone(), texts.theirs_next())
        check_written(board, texts, what)
    few.x = few.x[:0]  # as if there were room for no text
    must_raise(ValueError, "scores of more texts than there is room for", few.scores, *given)


def check_written(board: Scoreboard, texts: Texts, what: str) -> None:
    """The pool holds what HuggingFace's caches do, and nothing in any other slot."""
    free = torch.ones(texts.pool.k.shape[1], dtype=torch.bool, device=DEVICE)
    for i, length in enumerate(texts.lengths):
        slots = texts.slots(i, range(length))
        free[slots] = False
        for n, layer in enumerate(texts.caches[i].layers):
            name = f"{what}, text {i}, layer {n}"
            k, v = (x[n][slots].transpose(0, 1) for x in (texts.pool.k, texts.pool.v))
            board.compare(None, "keys in the pool", name, k, layer.keys[0])
            board.compare(None, "values in the pool", name, v, layer.values[0])
    for held in (texts.pool.k, texts.pool.v):
        holds(f"{what}: all other slots stay as they were", bool(held[:, free].isnan().all()))
