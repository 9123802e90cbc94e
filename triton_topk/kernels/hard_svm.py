"""The top-k hinge loss is computed from the pivot p, the k-th largest score of the others:

L = max(0, margin + (p - s_y) / k)      dL/ds_y = -1 / k where L > 0      dL/ds_i = (1 / k) / ties where s_i = p
"""

import triton
import triton.language as tl


@triton.jit
def weigh(x, p):
    """Return 1 where x is the pivot, and NaN where x is.  The sum is the number of ties."""
    return tl.where(x == x, (x == p).to(x.dtype), x)


@triton.jit
def merge(v, ties, pivot, LOSS: tl.constexpr):
    """Count the ties of a row, from the largest scores v and the ties of its parts [ROWS, PARTS]."""
    p = v[LOSS.k - 1]
    count = tl.where(p == pivot, ties, 0.0 * ties)
    for i in tl.static_range(LOSS.k - 1):
        count += ((v[i] > p) & (v[i] == pivot)).to(count.dtype)
    return tl.sum(count, axis=1)


@triton.jit
def row_loss(largest, ties, row, LOSS: tl.constexpr):
    """Return the loss and -dL/ds_y of a row."""
    violation = (row.margin + (largest.p.to(tl.float64) - row.score.to(tl.float64))) / LOSS.k
    # a comparison and a maximum lose NaN
    trivial = 0.0 * (ties + largest.first)
    loss = tl.where(violation > 0, violation.to(ties.dtype), 0.0 * row.score) + trivial
    loss = tl.where(largest.few, trivial + 0.0 * row.score, loss)
    return loss, tl.where(loss > 0, 1.0 / LOSS.k, 0.0 * loss)


@triton.jit
def share(slope, ties):
    """Return the gradient of each tie; there may be none.  slope: -dL/ds_y."""
    return slope / tl.maximum(ties, 1.0)


@triton.jit
def gradient(x, p, share):
    """Return dL/ds_i of the scores x."""
    return tl.where(x == p, share, 0.0 * share)
