"""What there is once a row, whichever kernel has read its scores: label, loss, coefficients of the gradient.

Row quantities have the shape [ROWS].
"""

import triton
import triton.language as tl

from triton_topk.kernels import lq, smooth_svm
from triton_topk.kernels.logistic import logistic, reciprocal


@triton.jit
def load_label(labels, row, n, ignore_index):
    """The label, -1 if it is no class; whether the row counts; whether its label is a class."""
    label = tl.load(labels + row).to(tl.int64)
    active = label != ignore_index
    known = active & (label >= 0) & (label < n)
    return tl.where(known, label, -1).to(tl.int32), active, known


@triton.jit
def load_score(here, label, active, known, ACC: tl.constexpr):
    """The label's score."""
    s_y = tl.load(here + label, mask=known, other=float("nan")).to(ACC)
    # +inf is NaN, as in cross-entropy; an ignored row is a row of masked classes
    s_y = tl.where(s_y == float("inf"), float("nan"), s_y)
    return tl.where(active, s_y, 0.0)


@triton.jit
def any_within(label, offset, WIDTH: tl.constexpr):
    """1 if a label is one of the WIDTH columns from offset on, else 0."""
    within = (label >= offset) & (label < offset + WIDTH)
    return tl.max(within.to(tl.int32), axis=0)


@triton.jit
def pivot(v, K: tl.constexpr):
    """The largest score, the K-th largest, and whether there are fewer, of the largest scores v."""
    largest = tl.maximum(v[0], lq.LOWEST)
    few = v[K - 1] == float("-inf")
    # 0, or NaN where the largest score is +inf
    return largest, tl.where(few, 0.0, v[K - 1]) + 0.0 * largest, few


@triton.jit
def loss_and_slopes(
    v,
    r,
    log2_s,
    n_ties,
    total,
    s_y,
    settings,
    rate,
    SMOOTH: tl.constexpr,
    HARD: tl.constexpr,
    LQ: tl.constexpr,
    K: tl.constexpr,
    TRUNCATED: tl.constexpr,
):
    """The loss; -dL/ds_y of the smooth, hard and Lq loss; what the gradient of the smooth one needs."""
    ACC: tl.constexpr = s_y.dtype
    margin, inverse, tau, q, cut, truncated, mix = settings
    largest, p, few = pivot(v, K)
    floor = v[len(v) - 1]
    loss = tl.zeros_like(s_y)
    svm_g = loss
    hard_g = loss
    lq_g = loss
    polynomials = ()
    share = 1.0
    if LQ:
        share = tl.full([1], mix, ACC)
        lq_loss, lq_g = lq.lq_row(
            total,
            largest,
            s_y,
            tl.full([1], q, tl.float64),
            tl.full([1], cut, ACC),
            tl.full([1], truncated, ACC),
            TRUNCATED,
        )
        loss = (1.0 - share) * lq_loss
        lq_g = (1.0 - share) * lq_g
    if SMOOTH:
        r = (tl.full(s_y.shape, 1.0, ACC),) + r
        d = smooth_svm.top_exponents(v, floor, p, log2_s, rate)
        S = smooth_svm.combine(r, d)
        u = smooth_svm.ratios(S, tl.exp2(log2_s), K)
        polynomials = (r, d, S, u, p, log2_s)
        # in float64: where tau is small, margin + (p - s_y) / k cancels
        linear = (margin + (p.to(tl.float64) - s_y.to(tl.float64))) * inverse
        svm_loss, svm_g = logistic(linear, reciprocal(u[K - 1]))
        trivial = 0.0 * (r[0] + r[1] + s_y)
        loss += share * tl.where(few, trivial, tl.full([1], tau, ACC) * svm_loss.to(ACC))
        svm_g = share * tl.where(few, trivial, svm_g / K)
    if HARD:
        violation = (margin + (p.to(tl.float64) - s_y.to(tl.float64))) / K
        # a comparison and a maximum lose NaN
        trivial = 0.0 * (n_ties + largest)
        loss = tl.where(violation > 0, violation.to(ACC), 0.0 * s_y) + trivial
        loss = tl.where(few, trivial + 0.0 * s_y, loss)
        hard_g = tl.where(loss > 0, 1.0 / K, 0.0 * loss)
    return loss, (svm_g, hard_g, lq_g), polynomials


@triton.jit
def load_scale(row, label, known, weight, normalizer, ACC: tl.constexpr):
    """What the loss is multiplied by."""
    scale = tl.full(row.shape, 1.0, ACC)
    if weight is not None:
        scale = tl.load(weight + label, mask=known, other=0.0).to(ACC)
    if normalizer is not None:
        scale = scale / tl.load(normalizer).to(ACC)
    return scale


@triton.jit
def load_upstream(row, upstream, upstream_stride, ACC: tl.constexpr):
    """What the gradient is multiplied by beside."""
    if upstream is None:
        return tl.full(row.shape, 1.0, ACC)
    else:
        return tl.load(upstream + row * upstream_stride).to(ACC)


@triton.jit
def coefficients(
    v,
    slopes,
    polynomials,
    n_ties,
    total,
    scale,
    SMOOTH: tl.constexpr,
    HARD: tl.constexpr,
    LQ: tl.constexpr,
    K: tl.constexpr,
):
    """-dL/ds_y of all losses and of the smooth one, and what the gradient of other scores needs of each."""
    svm_g, hard_g, lq_g = slopes
    largest, p, _ = pivot(v, K)
    g = tl.zeros_like(scale)
    smooth = ()
    hard = ()
    soft = ()
    if LQ:
        lq_g = lq_g * scale
        g = lq_g
        # 0, or NaN, where no other class is left
        soft = (largest, tl.where(total == 0, lq_g, lq_g / total))
    if HARD:
        g = hard_g * scale
        hard = (p, g / tl.maximum(n_ties, 1.0))
    if SMOOTH:
        svm_g = svm_g * scale
        g += svm_g
        smooth = (p, smooth_svm.gradient_polynomial(polynomials[3], svm_g, K))
    return g, svm_g, (smooth, hard, soft)


@triton.jit
def gradient(
    kept,
    by_loss,
    rate,
    SMOOTH: tl.constexpr,
    HARD: tl.constexpr,
    LQ: tl.constexpr,
    WEIGHED: tl.constexpr,
):
    """The gradient of some scores, Top's aside; kept: the scores, or if WEIGHED their one exponential."""
    smooth, hard, soft = by_loss
    out = tl.zeros_like(kept)
    if SMOOTH:
        p, polynomial = smooth
        e = kept if WEIGHED else smooth_svm.weigh(kept, p[:, None], rate)
        out = smooth_svm.horner(polynomial, e)
    if HARD:
        p, tie = hard
        out = tl.where(kept == p[:, None], tie[:, None], 0.0 * tie[:, None])
    if LQ:
        largest, each = soft
        e = kept if WEIGHED else lq.softmax_weight(kept, largest[:, None])
        out += each[:, None] * e
    return out
