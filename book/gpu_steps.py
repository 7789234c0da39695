"""A step of the model for one text and for many, and what each idea gives: for bench_gpu.py."""

import contextlib
import statistics
import sys

import torch
from gpu_clock import DEVICE, ON_A_GPU, host_microseconds, microseconds, wait
from torch.nn import functional as F

from nanoserve.engine.pool import KVPool, Span
from nanoserve.kernels import fused as fused_module
from nanoserve.kernels.attention import Reading, paged_attention, reading
from nanoserve.kernels.choice import choose
from nanoserve.kernels.decode import FewTexts, gate_up_kernel, head_kernel, power, qkv_kernel
from nanoserve.kernels.fused import FusedLlama
from nanoserve.kernels.graphs import DecodeGraphs, Rows
from nanoserve.kernels.launch import early
from nanoserve.layers import apply_rope
from nanoserve.model import Llama

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256) if ON_A_GPU else (1, 3)
CONTEXTS = (64, 512, 1024, 4096) if ON_A_GPU else (5, 20)
MOST, LONGEST, SIZE = (256, 1088, 16) if ON_A_GPU else (3, 32, 4)
WITHOUT = {"PDL": False}


def furnished(model: Llama, most: int = MOST, longest: int = LONGEST) -> DecodeGraphs:
    """Rows and a pool full of made keys and values, every row with blocks of its own."""
    fused, width = FusedLlama(model, longest), -(-longest // SIZE)
    weight = model.embed.weight
    pool = KVPool(model.config, most * width + 1, SIZE, weight.dtype, weight.device)
    for x in (pool.k, pool.v):
        x.normal_()
    rows = Rows(most, width, pool)
    rows.tables[:most] = torch.randperm(most * width, device=DEVICE).int().view(most, width)
    rows.ids.random_(0, model.config.vocab_size)
    return DecodeGraphs(fused, pool, rows)


def tell(graphs: DecodeGraphs, B: int, context: int) -> None:
    """B texts, of which all but the newest token are in the pool."""
    graphs.tell([*range(B)], [context - 1] * B, [0.6] * B, [0.5] * B)


def many(graphs: DecodeGraphs, B: int) -> tuple:
    """The step by the products of a library, whatever B is."""
    length, row = graphs.spans[2:, :B]
    which = Reading(graphs.rows.tables, graphs.spans, graphs.tiles[:B], 1)
    scores = graphs.scores(which, graphs.rows.ids[row], length, row)
    return scores, choose(scores, graphs.law, row, graphs.rows.ids)


def few(graphs: DecodeGraphs, B: int, short: bool, path: FewTexts | None = None) -> tuple:
    """The step by the kernels that read the weights once."""
    row = graphs.spans[3, :B]
    which = Reading(graphs.rows.tables, graphs.spans, graphs.tiles[:B], 1)
    scores = (path or graphs.few).scores(which, graphs.rows.ids, short)
    return scores, choose(scores, graphs.law, row, graphs.rows.ids)


def plain(model: Llama, graphs: DecodeGraphs, B: int, context: int) -> torch.Tensor:
    """The step of Day 16's runner: the model as it is, the pool's own attention."""
    tables, pool = graphs.rows.tables[:B].tolist(), graphs.pool
    spans = [Span(table, context - 1, 1) for table in tables]
    places = torch.full((B,), context - 1, device=DEVICE)
    x = model(graphs.rows.ids[None, :B], places, pool.attends(spans))
    return model.logits(x[0])


@contextlib.contextmanager
def patched(name: str, value, prefix: str = "nanoserve.kernels."):
    """Every module of the kernels that has `name` has `value` for a while."""
    held = [m for n, m in [*sys.modules.items()] if n.startswith(prefix) and hasattr(m, name)]
    kept = [getattr(m, name) for m in held]
    for m in held:
        setattr(m, name, value)
    try:
        yield
    finally:
        for m, each in zip(held, kept, strict=True):
            setattr(m, name, each)


def launches(call) -> int | None:
    """How many kernels a call starts, as the profiler counts them."""
    if not ON_A_GPU:
        return None
    call()
    wait()
    kinds = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as seen:
        call()
        wait()
    return sum(e.count for e in seen.key_averages() if on_the_card(e))


def on_the_card(event) -> bool:
    """Whether the profiler's event is a kernel, and no copy or call."""
    kernel = event.device_type == torch.autograd.DeviceType.CUDA
    return kernel and not event.key.startswith(("Memcpy", "Memset"))


def step(model: Llama, found: dict) -> None:
    """A decode step at context 512: from a graph, kernel by kernel from the host, plain torch."""
    graphs, context = furnished(model), min(512, LONGEST - 1)
    found["context"], found["ms"] = context, {}
    for B in BATCHES:
        tell(graphs, B, context)
        told = {"many": microseconds(lambda B=B: many(graphs, B)) / 1e3}
        told["many, host"] = host_microseconds(lambda B=B: many(graphs, B)) / 1e3
        if B <= 2:
            told["few"] = microseconds(lambda B=B: few(graphs, B, False)) / 1e3
            told["few, host"] = host_microseconds(lambda B=B: few(graphs, B, False)) / 1e3
        if B in (1, 8, 32):
            call = lambda B=B: plain(model, graphs, B, context)  # noqa: E731
            told["plain, host"] = host_microseconds(call, 3) / 1e3
        found["ms"][B] = told
    if ON_A_GPU:  # would the few's path be worth it for four?
        path = FewTexts(graphs.model, graphs.pool, 4)
        tell(graphs, 4, context)
        found["ms"][4]["few"] = microseconds(lambda: few(graphs, 4, False, path)) / 1e3
    tell(graphs, 1, context)
    found["launches"] = {
        "plain": launches(lambda: plain(model, graphs, 1, context)),
        "many": launches(lambda: many(graphs, 1)),
        "few": launches(lambda: few(graphs, 1, True)),
    }
    if ON_A_GPU:
        found["profile"] = {}
        for B, context in ((256, 811), (32, 512)):
            tell(graphs, B, context)
            found["profile"][f"{B} x {context}"] = profile(lambda B=B: many(graphs, B))


def profile(call) -> dict[str, float]:
    """Microseconds of each kernel of a call, by its name."""
    call()
    wait()
    kinds = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as seen:
        for _ in range(5):
            call()
        wait()
    events = filter(on_the_card, seen.key_averages())
    events = sorted(events, key=lambda e: -e.device_time_total)
    return {e.key[:60]: round(e.device_time_total / 5, 1) for e in events[:16]}


def one_text(model: Llama, found: dict) -> None:
    """One token of one text: both paths, with and without early launches, and its parts."""
    graphs = furnished(model, 2, max(CONTEXTS) + SIZE)
    found["ms"] = {}
    for early_too in (True, False):
        with contextlib.nullcontext() if early_too else patched("early", lambda: WITHOUT):
            for context in CONTEXTS:
                tell(graphs, 1, context)
                short = context <= 160
                told = found["ms"].setdefault(context, {})
                end = "" if early_too else ", no early launch"
                told[f"few{end}"] = microseconds(lambda s=short: few(graphs, 1, s)) / 1e3
                told[f"many{end}"] = microseconds(lambda: many(graphs, 1)) / 1e3
    tell(graphs, 1, CONTEXTS[0])
    found["parts"] = parts_of_a_token(graphs)
    found["keys cut into"] = {}
    tell(graphs, 1, CONTEXTS[2] if ON_A_GPU else CONTEXTS[-1])
    for count in (1, 8, 16, 32):
        with patched("paged_attention", cut_into(count), "nanoserve.kernels.decode"):
            found["keys cut into"][count] = microseconds(lambda: few(graphs, 1, False)) / 1e3


def cut_into(count: int):
    """Attention whose texts are cut into `count` parts, whoever calls it."""

    def attend(q, k, v, which, size, parts, each, tile):
        return paged_attention(q, k, v, which, size, count, each, tile)

    return attend


def parts_of_a_token(graphs: DecodeGraphs) -> dict:
    """Each kernel by itself, once a layer, in microseconds; and the bytes of weights it reads."""
    path, m, pool = graphs.few, graphs.model, graphs.pool
    blocks, size = m.model.blocks, m.head.itemsize
    C, inner, V, H, K, D = path.C, path.F, path.V, path.H, path.K, path.D
    which = Reading(graphs.rows.tables, graphs.spans, graphs.tiles[:1], 1)
    spans, tables, P = which.spans, which.tables, min(8, D // 2)
    mix = torch.randn(1, H * D, device=DEVICE, dtype=m.head.dtype)
    path.x.normal_(), path.act.normal_(), path.q.normal_()

    def qkv(i):
        qkv_kernel[((H + 2 * K) * (D // 2 // P),)](
            path.x, blocks[i].attn_norm.weight, m.qkv[i], m.cos, m.sin, spans, tables, path.q,
            pool.k[i], pool.v[i], m.eps, spans.stride(0), tables.stride(0), 1, C, power(C), H, K, D,
            P, pool.block_size, num_warps=4, **early())  # fmt: skip

    def gate_up(i, R=2, warps=4):
        gate_up_kernel[(-(-inner // R),)](
            path.x, blocks[i].mlp_norm.weight, m.gate_up[i], path.act, m.eps, 1, C, power(C), inner,
            R, num_warps=warps, **early())  # fmt: skip

    def head(i):
        head_kernel[(-(-V // 4),)](
            path.x, m.model.norm.weight, m.head, path.out, m.eps, V, 1, C, power(C), 4,
            num_warps=4, **early())  # fmt: skip

    def attend(i, parts=1, tile=64):
        paged_attention(path.q[:1], pool.k[i], pool.v[i], which, pool.block_size, parts, 0, tile)

    def add(i):
        path.add(1, mix, blocks[i].attn.o_proj.weight, 8, 4)

    def down(i):
        path.add(1, path.act, blocks[i].mlp.down_proj.weight, 4, 8)

    def pick(i):
        choose(path.out[:1], graphs.law, graphs.spans[3, :1], graphs.rows.ids)

    weights = {qkv: m.qkv[0], add: blocks[0].attn.o_proj.weight, gate_up: m.gate_up[0]}
    weights |= {down: blocks[0].mlp.down_proj.weight, head: m.head}
    names = {qkv: "qkv", attend: "attention", add: "o_proj", gate_up: "gate and up", down: "down"}
    names |= {head: "head", pick: "choice"}
    layers, found = range(len(blocks)), {}
    for kernel, name in names.items():
        once = kernel in (head, pick)
        calls = [lambda i=i, kernel=kernel: kernel(i) for i in ([0] if once else layers)]
        held = weights.get(kernel)
        found[name] = {
            "us": microseconds(*calls, times=4),
            "times": 1 if once else len(layers),
            "bytes": 0 if held is None else held.numel() * size,
        }
    found["rows of gate and up"] = {
        f"{R} rows, {warps} warps": microseconds(
            *(lambda i=i, R=R, w=warps: gate_up(i, R, w) for i in layers), times=2
        )
        for R, warps in ((1, 4), (2, 4), (4, 4), (4, 8))
    }
    return found


def ladder(model: Llama, found: dict) -> None:
    """The step of many texts with torch's own operations, then kernel by kernel."""
    graphs, context = furnished(model), min(512, LONGEST - 1)
    K, D = graphs.pool.k.shape[2:]

    def plain_norm(x, weight, eps, delta=None):
        if delta is not None:
            x += delta
        h = x.float()
        return weight * (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)

    def plain_rope(qkv, cos, sin, positions, slots, keys, values):
        T, H = len(qkv), qkv.shape[1] // D - 2 * K
        q, k, v = qkv.view(T, H + 2 * K, D).split([H, K, K], 1)
        both = [torch.cat([t[positions]] * 2, -1) for t in (cos, sin)]  # (T, D)
        q, k = (apply_rope(x.transpose(0, 1)[None], *both)[0].transpose(0, 1) for x in (q, k))
        keys[slots], values[slots] = k, v
        return q.contiguous()

    def plain_mlp(both):
        gate, up = both.chunk(2, -1)
        return F.silu(gate) * up

    theirs = {"rms_norm": plain_norm, "rope_write": plain_rope, "silu_mul": plain_mlp}
    where = fused_module.__name__
    for B in (32, 256) if ON_A_GPU else (3,):
        tell(graphs, B, context)
        told = found[B] = {}
        for count, rung in enumerate(("torch", "norm", "rope", "mlp")):
            with contextlib.ExitStack() as stack:
                for name in [*theirs][count:]:
                    stack.enter_context(patched(name, theirs[name], where))
                told[rung] = microseconds(lambda B=B: many(graphs, B)) / 1e3
    found["context"] = context


def errors(model: Llama, found: dict) -> None:
    """Scores of a text: each path and plain torch in the card's dtype, from float32."""
    graphs, T = furnished(model, 2, 64), 24 if ON_A_GPU else 6
    ids = torch.randint(0, model.config.vocab_size, (T,), device=DEVICE)
    wide = Llama(model.config).to(DEVICE)
    wide.load_state_dict(model.state_dict())
    exact = wide.logits(wide(ids[None]))[0].double()
    del wide
    ours = {"few": [], "many": []}
    for place in range(T):
        for name, path in (
            ("few", lambda: few(graphs, 1, True)),
            ("many", lambda: many(graphs, 1)),
        ):
            tell(graphs, 1, place + 1)
            graphs.rows.ids[0] = ids[place]
            ours[name].append(path()[0].clone())
    told = {name: torch.cat(rows) for name, rows in ours.items()}
    told["plain torch"] = model.logits(model(ids[None]))[0]
    which = reading(graphs.rows.tables[:1], [(T, 0, 0)], pool_groups(model))
    place = torch.arange(T, device=DEVICE)
    slots = graphs.rows.tables[0, place // SIZE].long() * SIZE + place % SIZE
    told["prompt"] = graphs.model.scores(
        ids, place, slots, graphs.pool.k, graphs.pool.v,
        lambda q, k, v: paged_attention(q, k, v, which, SIZE),
    )  # fmt: skip
    for name, scores in told.items():
        off = (scores.double() - exact).norm(dim=-1) / exact.norm(dim=-1)
        same = (scores.argmax(-1) == exact.argmax(-1)).double().mean().item()
        found[name] = {"relative": statistics.median(off.tolist()), "same best": same}


def pool_groups(model: Llama) -> int:
    """Query heads that share a KV head."""
    return model.config.num_attention_heads // model.config.num_key_value_heads
