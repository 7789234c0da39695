"""A block and the head for a few rows, in loops that numba compiles.

One row is multiplied with a matrix at the speed at which the matrix is read. So it is read once,
by all cores, in 16 bits where that is all it has; and what stands between the products, norms and
RoPE and silu, needs no calls of a library.

Each row is added up in the same order whatever rows stand beside it. The names of shapes are those
of layers.py; R are the rows, H * D and F the widths between.
"""

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic, overload

# Sums may be taken in any order, or they could not be taken 8 or 16 numbers at a time. NaN and
# infinity stay what they are: numba's fastmath=True would let the compiler forget them.
LOOSE = {"reassoc", "contract", "nsz"}
LOOP = {"fastmath": LOOSE, "error_model": "numpy"}
ALL_CORES = LOOP | {"parallel": True, "nogil": True}
F32 = np.float32


def all_cores(loop):
    """A loop, compiled for all cores at its first call.

    That takes seconds, so the result is kept beside this file or in the user's cache, and made
    anew when this file changes. Where neither can be written to, each process compiles its own.
    """
    try:
        return njit(**ALL_CORES, cache=True)(loop)
    except RuntimeError:
        return njit(**ALL_CORES)(loop)


@intrinsic
def from_bf16(context, bits):
    """The float32 of which `bits`, a uint16, are the upper half: a bfloat16 is just that."""

    def generate(context, builder, signature, arguments):
        word = ir.IntType(32)
        upper = builder.shl(builder.zext(arguments[0], word), ir.Constant(word, 16))
        return builder.bitcast(upper, ir.FloatType())

    return types.float32(types.uint16), generate


def widen(weight):
    """A weight as float32: as it is, or from the bits of a bfloat16."""


@overload(widen, inline="always")
def _(weight):
    if weight == types.uint16:
        return lambda weight: from_bf16(weight)
    return lambda weight: weight


@njit(**LOOP, inline="always")
def dot(row, x):
    """A weight's row (in,) and a token's (in,): their product."""
    total = F32(0)
    for i in range(x.shape[0]):
        total += widen(row[i]) * x[i]
    return total


@njit(**LOOP)
def normed(x, gain, eps, out):
    """RMSNorm of x (R, C) into `out`."""
    for r in range(x.shape[0]):
        total = F32(0)
        for i in range(x.shape[1]):
            total += x[r, i] * x[r, i]
        scale = F32(1) / np.sqrt(total / F32(x.shape[1]) + F32(eps))
        for i in range(x.shape[1]):
            out[r, i] = x[r, i] * scale * gain[i]


@njit(**LOOP)
def rotated(x, cos, sin):
    """RoPE in place: x (R, heads * D), cos and sin (R, D)."""
    D = cos.shape[1]
    for r in range(x.shape[0]):
        for first in range(0, x.shape[1], D):
            for i in range(first, first + D // 2):
                a, b, c, s = x[r, i], x[r, i + D // 2], cos[r, i - first], sin[r, i - first]
                x[r, i], x[r, i + D // 2] = a * c - b * s, b * c + a * s


@all_cores
def product(x, weight, out):
    """x (R, in) times weight (out, in) into `out` (R, out)."""
    for i in prange(weight.shape[0]):
        for r in range(x.shape[0]):
            out[r, i] = dot(weight[i], x[r])


@all_cores
def before(x, gain, eps, wq, wk, wv, cos, sin, q, k, v):
    """What stands before attention: the norm, q (R, H * D), k and v (R, K * D), RoPE."""
    h = np.empty_like(x)
    normed(x, gain, eps, h)
    queries, keys = wq.shape[0], wk.shape[0]
    for i in prange(queries + 2 * keys):
        for r in range(x.shape[0]):
            if i < queries:
                q[r, i] = dot(wq[i], h[r])
            elif i < queries + keys:
                k[r, i - queries] = dot(wk[i - queries], h[r])
            else:
                v[r, i - queries - keys] = dot(wv[i - queries - keys], h[r])
    rotated(q, cos, sin)
    rotated(k, cos, sin)


@all_cores
def behind(x, mix, gain, eps, wo, wg, wu, wd, out):
    """What stands behind it: o_proj, the sum, the norm, the gated MLP, the sum: (R, C)."""
    R = x.shape[0]
    middle, h = np.empty_like(x), np.empty_like(x)
    gated = np.empty((R, wg.shape[0]), F32)
    for i in prange(wo.shape[0]):
        for r in range(R):
            middle[r, i] = x[r, i] + dot(wo[i], mix[r])
    normed(middle, gain, eps, h)
    for i in prange(wg.shape[0]):
        for r in range(R):
            gate = dot(wg[i], h[r])
            gated[r, i] = gate / (F32(1) + np.exp(-gate)) * dot(wu[i], h[r])
    for i in prange(wd.shape[0]):
        for r in range(R):
            out[r, i] = middle[r, i] + dot(wd[i], gated[r])
