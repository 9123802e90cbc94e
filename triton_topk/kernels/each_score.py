"""What is done for each score of a row that is not a candidate, whichever losses take part."""

import triton
import triton.language as tl

from triton_topk.kernels import blocks, lq, smooth_svm
from triton_topk.kernels.polynomial import include


@triton.jit
def hard_ties(x, p):
    """1 where x is the k-th largest score; NaN where x is."""
    return tl.where(x == x, (x == p[:, None]).to(x.dtype), x)


@triton.jit
def include_rest(
    r,
    totals,
    ties,
    block,
    pivots,
    p,
    largest,
    rate,
    SMOOTH: tl.constexpr,
    HARD: tl.constexpr,
    LQ: tl.constexpr,
    VEC: tl.constexpr,
):
    """The polynomial, the sums of exponentials and the numbers of ties after the scores of a block."""
    for v in tl.static_range(len(block)):
        x = block[v]
        if SMOOTH:
            e = blocks.split(smooth_svm.weigh(x, pivots[v], rate), VEC)
            for i in tl.static_range(VEC):
                r = include(r, e[i])
        if HARD:
            ties = blocks.add(ties, v, hard_ties(x, p))
        if LQ:
            totals = blocks.add(totals, v, lq.softmax_weight(x, largest[:, None]))
    return r, totals, ties


@triton.jit
def gradient(
    kept,
    smooth,
    hard,
    soft,
    rate,
    SMOOTH: tl.constexpr,
    HARD: tl.constexpr,
    LQ: tl.constexpr,
    WEIGHED: tl.constexpr,
):
    """The gradient of some scores, Top's aside; kept: the scores, or if WEIGHED their one exponential."""
    out = tl.zeros_like(kept)
    if SMOOTH:
        p, coefficients = smooth
        e = kept if WEIGHED else smooth_svm.weigh(kept, p[:, None], rate)
        out = smooth_svm.horner(coefficients, e)
    if HARD:
        p, tie = hard
        out = tl.where(kept == p[:, None], tie[:, None], 0.0 * tie[:, None])
    if LQ:
        largest, each = soft
        e = kept if WEIGHED else lq.softmax_weight(kept, largest[:, None])
        out += each[:, None] * e
    return out


@triton.jit
def add(x, smooth, hard, soft, SMOOTH: tl.constexpr, HARD: tl.constexpr, LQ: tl.constexpr):
    """x added to what `gradient` needs of a row."""
    if SMOOTH:
        p, coefficients = smooth
        out = ()
        for i in tl.static_range(len(coefficients)):
            out = out + (coefficients[i] + x,)
        smooth = (p + x, out)
    if HARD:
        p, tie = hard
        hard = (p + x, tie + x)
    if LQ:
        largest, each = soft
        soft = (largest + x, each + x)
    return smooth, hard, soft
