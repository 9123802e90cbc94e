"""A set of scores, summarised in O(k) numbers, and what merges the summaries of disjoint sets.

A summary is (v, r, log2_s, total, ties):

    v       the TOP largest scores, descending
    r       s^j r_j of the rest, relative to the K-th largest score (see smooth_svm.py)
    log2_s  of that s, a power of two
    total   the sum of exp(s_i - m), m the largest score
    ties    how many scores beside v equal the last of v; NaN if a score is

A lane collects the summary of its scores, apart from references: r and total are relative to scores that have been
thought up, above all those included, since with the first scores that come the largest are not known.  The
lanes merge into the summary of a part of a row, the parts into that of the row.
"""

import triton
import triton.language as tl

from triton_topk.kernels import blocks, lists, lq, smooth_svm
from triton_topk.kernels.lq import LOWEST
from triton_topk.kernels.polynomial import include, product_over_lanes


@triton.jit
def empty(shape: tl.constexpr, ACC: tl.constexpr, TOP: tl.constexpr, DEGREE: tl.constexpr):
    """A lane's summary of no scores, with the references of r and total."""
    v = ()
    for _ in tl.static_range(TOP):
        v = v + (tl.full(shape, float("-inf"), ACC),)
    r = ()
    for _ in tl.static_range(DEGREE):
        r = r + (tl.zeros(shape, ACC),)
    lowest = tl.full(shape, LOWEST, ACC)
    return v, r, lowest, tl.zeros(shape, ACC), lowest, tl.zeros(shape, ACC)


@triton.jit
def include_scores(
    lane,
    loaded,
    rate,
    slack,
    SMOOTH: tl.constexpr,
    HARD: tl.constexpr,
    LQ: tl.constexpr,
    VEC: tl.constexpr,
):
    """A lane's summary with more scores.  loaded: blocks of them; slack: log 2 in units of the scores."""
    v, r, reference, total, soft_reference, ties = lane
    old = v
    out = ()
    for b in tl.static_range(len(loaded)):
        v, left_over = lists.push(v, blocks.split(loaded[b], VEC))
        out = out + left_over
    if SMOOTH:
        # what is left over is not above the list
        before = reference
        reference = _raise(before, v[len(v) - 1], slack)
        r = smooth_svm.rescale(r, smooth_svm.weigh(before, reference, rate))
        for i in tl.static_range(len(out)):
            r = include(r, smooth_svm.weigh(out[i], reference, rate))
    if HARD:
        last = v[len(v) - 1]
        # not by tl.where, which would lose NaN
        ties = ties * (last == old[len(v) - 1]).to(last.dtype)
        for i in tl.static_range(len(out)):
            ties += tl.where(out[i] == out[i], (out[i] == last).to(last.dtype), out[i])
    if LQ:
        before = soft_reference
        soft_reference = _raise(before, v[0], 1.0)
        total = total * lq.softmax_weight(before, soft_reference)
        for b in tl.static_range(len(loaded)):
            columns = blocks.split(loaded[b], VEC)
            for i in tl.static_range(VEC):
                total += lq.softmax_weight(columns[i], soft_reference)
    return v, r, reference, total, soft_reference, ties


@triton.jit
def _raise(reference, least, slack):
    """A reference not below `least`.  When it moves it moves by more than the slack, so that each move leaves
    half or less of what the earlier ones have rounded."""
    return tl.where(least > reference, least + slack, reference)


@triton.jit
def merge(
    v,
    included,
    r,
    reference,
    log2_s,
    total,
    soft_reference,
    ties,
    rate,
    SMOOTH: tl.constexpr,
    HARD: tl.constexpr,
    LQ: tl.constexpr,
    K: tl.constexpr,
    TOP: tl.constexpr,
    SORTED: tl.constexpr,
    REDUCIBLE: tl.constexpr,
    SCALED: tl.constexpr,
):
    """The summary of all lanes of axis 1 together.

    r: relative to reference, with what is in v and not above `included` already.
    """
    padded = v
    for _ in tl.static_range(TOP, SORTED):
        padded = padded + (tl.full(v[0].shape, float("-inf"), v[0].dtype),)
    merged = lists.merge_lanes(padded, SORTED)
    top = ()
    for i in tl.static_range(TOP):
        top = top + (merged[i],)
    zero = tl.zeros_like(top[0])
    s = zero
    all_ties = zero
    all_total = zero
    if SMOOTH:
        p = tl.maximum(top[K - 1], LOWEST)[:, None]
        floor = top[TOP - 1][:, None]
        # in terms of p an e of r is 2^shift of what it was
        shift = (reference - p) * rate - log2_s
        first = r[0] * tl.exp2(shift)
        e = ()
        for i in tl.static_range(TOP):
            is_new = (v[i] <= floor) & (v[i] > included)
            e = e + (tl.where(is_new, smooth_svm.weigh(v[i], p, rate), 0.0),)
            first += e[i]
        if SCALED:
            s = smooth_svm.log2_scale(first, K)
        r = smooth_svm.rescale(r, tl.exp2(shift + s[:, None]))
        for i in tl.static_range(TOP):
            r = include(r, e[i] * tl.exp2(s)[:, None])
        r = product_over_lanes(r, REDUCIBLE)
    if HARD:
        last = top[TOP - 1]
        count = tl.where(v[TOP - 1] == last[:, None], ties, 0.0 * ties)
        for i in tl.static_range(TOP):
            count += (v[i] == last[:, None]).to(count.dtype)
            all_ties -= (top[i] == last).to(count.dtype)
        all_ties += tl.sum(count, axis=1)
    if LQ:
        largest = tl.maximum(top[0], LOWEST)
        all_total = tl.sum(total * lq.softmax_weight(soft_reference, largest[:, None]), axis=1)
    return top, r, s, all_total, all_ties


@triton.jit
def store(there, stride, summary):
    """One number after the other, a stride apart."""
    v, r, log2_s, total, ties = summary
    numbers = v + r + (log2_s, total, ties)
    for i in tl.static_range(len(numbers)):
        tl.store(there + i * stride, numbers[i])


@triton.jit
def load(here, stride, inside, TOP: tl.constexpr, DEGREE: tl.constexpr):
    v = ()
    for i in tl.static_range(TOP):
        v = v + (tl.load(here + i * stride, mask=inside, other=float("-inf")),)
    others = ()
    for i in tl.static_range(TOP, TOP + DEGREE + 3):
        others = others + (tl.load(here + i * stride, mask=inside, other=0.0),)
    r = ()
    for i in tl.static_range(DEGREE):
        r = r + (others[i],)
    return v, r, others[DEGREE], others[DEGREE + 1], others[DEGREE + 2]
