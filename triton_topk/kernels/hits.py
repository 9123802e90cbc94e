"""The top-k hits follow from the rank of the label, which the largest of the others tell as far as k."""

import triton
import triton.language as tl


@triton.jit
def rank(v, row, scores, n, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Count the classes that come before the label, exactly below K: larger scores, and equal ones of lower classes.

    v: the largest scores of the others, descending; scores: pointers [ROWS, 1] to the first of each row's n.  Where the
    label is equal to one of v, which is seldom, the row is read again for which of its equals come first.
    """
    s_y = row.score
    before = tl.zeros(s_y.shape, tl.int32)
    tied = tl.zeros(s_y.shape, tl.int32)
    for i in tl.static_range(LOSS.k):
        before += (v[i] > s_y).to(tl.int32)
        tied |= (v[i] == s_y).to(tl.int32)
    column = tl.arange(0, LAYOUT.columns)[None, :]
    equals = tl.zeros([LAYOUT.rows, LAYOUT.columns], tl.int32)
    for offset in tl.range(0, n * tl.max(tied, axis=0), LAYOUT.columns, loop_unroll_factor=1):
        x = tl.load(scores + column + offset, mask=column < n - offset, other=float("-inf"))
        lower = column + offset < row.label[:, None]
        equals += ((x.to(LAYOUT.acc) == s_y[:, None]) & lower).to(tl.int32)
    # not in the loop, where a warp could not be seen to be as one
    return before + tl.sum(equals, axis=1)


@triton.jit
def store(hits, rank, row, loss, first_part, LOSS: tl.constexpr):
    """Store whether the label is the first, and among the first K; False for rows that do not count."""
    counted = row.active & (loss == loss)
    tl.store(hits + 2 * row.number, counted & (rank < 1), mask=first_part)
    tl.store(hits + 2 * row.number + 1, counted & (rank < LOSS.k), mask=first_part)
