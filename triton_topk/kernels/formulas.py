"""Each step of the kernel asks for the losses that take part: one, or the mixture of two.

The smooth SVM has a polynomial of the scores.  Each other loss has a sum over the scores: the hinge loss the number of
ties, Lq the sum of exponentials.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from triton_topk.kernels import hard_svm, lists, lq, smooth_svm, tuples


class Gradient(NamedTuple):
    """A Gradient holds what the gradient of a row's scores is computed from, [ROWS]."""

    p: Any  # the pivot
    coefficients: Any  # of the smooth SVM's polynomial in e
    first: Any  # the largest score
    share: Any  # of the sum's loss, for each unit of the sum


@triton.jit
def weigh_for_sum(x, largest, LOSS: tl.constexpr):
    """Return the terms of the sum over the scores x."""
    if LOSS.hard:
        return hard_svm.weigh(x, largest.p[:, None])
    else:
        tl.static_assert(LOSS.lq)
        return lq.weigh(x, largest.first[:, None])


@triton.jit
def merge(v, total, top, LOSS: tl.constexpr):
    """Merge the sums of a row's parts [ROWS, PARTS], which have the largest scores v; top: the row's, [ROWS]."""
    if LOSS.hard:
        return hard_svm.merge(v, total, tl.maximum(top[LOSS.k - 1], lists.LOWEST)[:, None], LOSS)
    else:
        tl.static_assert(LOSS.lq)
        return lq.merge(v, total, tl.maximum(top[0], lists.LOWEST)[:, None])


@triton.jit
def row_loss(largest, rest, row, numbers, LOSS: tl.constexpr):
    """Return the loss of a row, -dL/ds_y of the smooth SVM and of the loss of a sum, and the row's polynomials."""
    loss = tl.zeros_like(row.score)
    smooth_slope = loss
    sum_slope = loss
    polynomials = ()
    if LOSS.hard:
        loss, sum_slope = hard_svm.row_loss(largest, rest.total, row, LOSS)
    if LOSS.lq:
        loss, sum_slope = lq.row_loss(largest, rest.total, row, numbers, LOSS)
    if LOSS.smooth:
        smooth, smooth_slope, polynomials = smooth_svm.row_loss(largest, rest, row, numbers, LOSS)
        if LOSS.mixed:
            mix = tl.full([1], numbers.mix, loss.dtype)
            loss = (1.0 - mix) * loss + mix * smooth
            sum_slope = (1.0 - mix) * sum_slope
            smooth_slope = mix * smooth_slope
        else:
            loss = smooth
    return loss, smooth_slope, sum_slope, polynomials


@triton.jit
def row_gradient(largest, rest, polynomials, smooth_slope, sum_slope, zeros, LOSS: tl.constexpr):
    """Prepare the gradient of a row's scores, from the losses' -dL/ds_y.  zeros: see blocks.zeros, or None."""
    coefficients = ()
    share = sum_slope
    if LOSS.smooth:
        coefficients = smooth_svm.gradient_polynomial(polynomials.u, smooth_slope, LOSS.k)
        if zeros is not None:
            leading = coefficients[LOSS.k - 1] + zeros
            coefficients = coefficients[: LOSS.k - 1] + (leading,)
    if LOSS.hard:
        share = hard_svm.share(sum_slope, rest.total)
    if LOSS.lq:
        share = lq.share(sum_slope, rest.total)
    return Gradient(largest.p, coefficients, largest.first, share)


@triton.jit
def gradient(x, row, rate, WEIGHED: tl.constexpr, LOSS: tl.constexpr):
    """Return the gradient of scores that are not of Top.  x: the scores, or their weights if WEIGHED."""
    out = tl.zeros_like(x)
    if LOSS.smooth:
        e = x if WEIGHED else smooth_svm.weigh(x, row.p[:, None], rate)
        out = smooth_svm.gradient(e, row.coefficients)
    if LOSS.hard:
        share = row.share[:, None]
        out = share * x if WEIGHED else hard_svm.gradient(x, row.p[:, None], share)
    if LOSS.lq:
        e = x if WEIGHED else lq.weigh(x, row.first[:, None])
        out += row.share[:, None] * e
    return out


@triton.jit
def add_to_row(row, x):
    """Add x to each number of a Gradient: 0 in a layout, which moves them to it (see blocks.zeros)."""
    return Gradient(row.p + x, tuples.add_to_all(row.coefficients, x), row.first + x, row.share + x)
