"""The summary of a shard of a row's classes goes to the other shards; that of all of them comes back.

Their numbers are those of triton_topk/summary.py, in float64.  Pointers [ROWS] are to the first number of each row;
each number of all rows comes before the next one.
"""

import triton
import triton.language as tl

from triton_topk.kernels import lists, smooth_svm
from triton_topk.kernels.accumulate import Rest


@triton.jit
def store(pointers, n_rows, largest, rest, s_y, rank, LOSS: tl.constexpr):
    """Store the summary of a shard, and 0 as the place of the label, which whoever knows it stores later.

    Whether the floor is tied is known of the smooth SVM of k > 1, which alone has to know it.
    """
    # a list has no NaN
    poison = 0.0 * (largest.first + rest.total)
    r = ()
    if LOSS.smooth:
        poison += 0.0 * rest.r[0]
        for j in tl.static_range(len(rest.r)):
            r = r + (rest.r[j].to(tl.float64),)
        r = smooth_svm.rescale(r, tl.exp2(-rest.log2_s.to(tl.float64)))
        if LOSS.k == 1:
            r = _without_first(r, tl.where(largest.few, 0.0, 1.0))
    v = (largest.v[0] + poison,) + largest.v[1:]
    numbers = v + r + (rest.tied, rest.total, s_y, rank, tl.zeros_like(rank))
    for i in tl.static_range(len(numbers)):
        tl.store(pointers + i * n_rows, numbers[i].to(tl.float64))


@triton.jit
def load(pointers, n_rows, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Load the largest scores of all shards, and the Rest."""
    TOP: tl.constexpr = LOSS.top
    OTHERS: tl.constexpr = TOP + LOSS.degree
    v = ()
    for i in tl.static_range(TOP):
        x = tl.load(pointers + i * n_rows).to(LAYOUT.acc)
        v = v + (tl.where(x == x, x, float("inf")),)
    poison = 0.0 * tl.maximum(v[0], lists.LOWEST)
    log2_s = tl.zeros_like(v[0])
    r = ()
    if LOSS.smooth:
        of_all = ()
        for i in tl.static_range(TOP, OTHERS):
            of_all = of_all + (tl.load(pointers + i * n_rows),)
        if LOSS.k == 1:
            of_all = _with_first(of_all, tl.where(v[0] == float("-inf"), 0.0, 1.0))
        if LOSS.scaled:
            log2_s = smooth_svm.log2_scale(of_all[0].to(LAYOUT.acc), LOSS)
        of_all = smooth_svm.rescale(of_all, tl.exp2(log2_s.to(tl.float64)))
        for j in tl.static_range(len(of_all)):
            r = r + (of_all[j].to(LAYOUT.acc) + poison,)
    tied = tl.load(pointers + OTHERS * n_rows)
    total = tl.load(pointers + (OTHERS + 1) * n_rows).to(LAYOUT.acc)
    return v, Rest(r, log2_s, total + poison, tied > 0)


@triton.jit
def load_score(pointers, n_rows, active, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Load the label's score."""
    s_y = tl.load(pointers + (LOSS.top + LOSS.degree + 2) * n_rows).to(LAYOUT.acc)
    return tl.where(active, s_y, 0.0)


@triton.jit
def load_rank(pointers, n_rows, LOSS: tl.constexpr):
    """Load the number of the classes that come before the label."""
    return tl.load(pointers + (LOSS.top + LOSS.degree + 3) * n_rows).to(tl.int32)


@triton.jit
def _without_first(r, e):
    """Divide a polynomial by 1 + e y, the factor of v_1: for k = 1 v_1 is in a summary, but in the kernels' rest."""
    out = ()
    below = tl.zeros_like(e) + 1.0
    for j in tl.static_range(len(r)):
        below = r[j] - e * below
        out = out + (below,)
    return out


@triton.jit
def _with_first(r, e):
    """Undo _without_first."""
    out = (r[0] + e,)
    for j in tl.static_range(1, len(r)):
        out = out + (r[j] + e * r[j - 1],)
    return out
