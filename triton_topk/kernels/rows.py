"""What there is once a row: its label, its loss, what its gradient needs.  Row quantities have the shape [ROWS]."""

import triton
import triton.language as tl

from triton_topk.kernels import lq, smooth_svm
from triton_topk.kernels.logistic import logistic, reciprocal


@triton.jit
def load_label(labels, row, n, ignore_index):
    """The label, whether the row counts, and whether its label is a class."""
    label = tl.load(labels + row).to(tl.int64)
    active = label != ignore_index
    known = active & (label >= 0) & (label < n)
    return label, active, known


@triton.jit
def load_score(here, label, active, known, ACC: tl.constexpr):
    """The label's score."""
    s_y = tl.load(here + label, mask=known, other=float("nan")).to(ACC)
    # +inf is NaN, as in cross-entropy; an ignored row is a row of masked classes
    s_y = tl.where(s_y == float("inf"), float("nan"), s_y)
    return tl.where(active, s_y, 0.0)


@triton.jit
def part_of_row(part, n, label, known, LANES: tl.constexpr, PARTS: tl.constexpr):
    """The first column of a part, its width, the label's column in it, -1 in others, and whether it is there.

    Parts are of whole blocks, and differ by one block at most.
    """
    if PARTS == 1:
        return 0, n, label, known
    else:
        blocks = tl.cdiv(n, LANES)
        first = part * blocks // PARTS * LANES
        width = tl.minimum((part + 1) * blocks // PARTS * LANES, n) - first
        inside = known & (label >= first) & (label < first + width)
        return first, width, tl.where(inside, label - first, -1), inside


@triton.jit
def pivot(v, K: tl.constexpr):
    """The largest score v_1, the pivot p, and whether fewer than K others are left; v: the largest, descending."""
    largest = tl.maximum(v[0], lq.LOWEST)
    few = v[K - 1] == float("-inf")
    # 0, or NaN where the largest score is +inf
    return largest, tl.where(few, 0.0, v[K - 1]) + 0.0 * largest, few


@triton.jit
def losses(
    v,
    largest,
    p,
    few,
    r,
    log2_s,
    n_ties,
    total,
    s_y,
    margin,
    inverse,
    rate,
    tau,
    q,
    cut,
    truncated,
    mix,
    SMOOTH: tl.constexpr,
    HARD: tl.constexpr,
    LQ: tl.constexpr,
    TRUNCATED: tl.constexpr,
    K: tl.constexpr,
    SCALED: tl.constexpr,
):
    """The loss, -dL/ds_y of the smooth, the hard and the Lq loss, and what Top's gradient needs.

    v, largest, p, few: as of `pivot`; r, log2_s: the polynomial of the rest; n_ties: how many scores are equal to
    the k-th largest; total: the sum of exp(s_i - v_1).
    """
    ACC: tl.constexpr = s_y.dtype
    loss = tl.zeros_like(s_y)
    svm_g = ()
    hard_g = ()
    lq_g = ()
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
        a, b = smooth_svm.factors(v, p, log2_s, rate, K, SCALED)
        S = smooth_svm.combine(r, a, b, K, SCALED)
        u = smooth_svm.ratios(S, tl.exp2(log2_s), K)
        polynomials = (r, a, b, S, u, p, log2_s)
        # in float64: where tau is small, margin + (p - s_y) / k cancels, and z may be larger than tau z
        linear = (margin + (p.to(tl.float64) - s_y.to(tl.float64))) * inverse
        svm_loss, svm_g = logistic(linear, reciprocal(u[K - 1]))
        trivial = 0.0 * (r[0] + r[1] + s_y)
        svm_loss = (tl.full([1], tau, tl.float64) * svm_loss).to(ACC)
        loss += share * tl.where(few, trivial, svm_loss)
        svm_g = share * tl.where(few, trivial, svm_g / K)
    if HARD:
        violation = (margin + (p.to(tl.float64) - s_y.to(tl.float64))) / K
        # a comparison and a maximum lose NaN
        trivial = 0.0 * (n_ties + largest)
        loss = tl.where(violation > 0, violation.to(ACC), 0.0 * s_y) + trivial
        loss = tl.where(few, trivial + 0.0 * s_y, loss)
        hard_g = tl.where(loss > 0, 1.0 / K, 0.0 * loss)
    return loss, svm_g, hard_g, lq_g, polynomials
