"""The rank of the label among all classes, as far as the k largest of the others tell it."""

import triton
import triton.language as tl

from triton_topk.kernels import blocks


@triton.jit
def up_to(v, s_y, label, here, column, n, K: tl.constexpr, LANES: tl.constexpr, ACC: tl.constexpr):
    """How many classes come before the label, exact below K: larger scores, and equal ones of lower classes.

    v: the largest scores of the others, descending.  Where the label is equal to one of them, which is seldom, the
    row is read again for which of its equals come first.
    """
    rank = tl.zeros(s_y.shape, tl.int32)
    tied = tl.zeros(s_y.shape, tl.int32)
    for i in tl.static_range(K):
        rank += (v[i] > s_y).to(tl.int32)
        tied |= (v[i] == s_y).to(tl.int32)
    before = tl.zeros([s_y.shape[0], LANES], tl.int32)
    for offset in tl.range(0, n * tl.max(tied, axis=0), LANES, loop_unroll_factor=1):
        x = blocks.load(here, offset, column, n, ACC, True, 1)
        equal = (x[0] == s_y[:, None]) & (column[None, :] + offset < label[:, None])
        before += equal.to(tl.int32)
    # not in the loop, where a warp could not be seen to be as one
    return rank + tl.sum(before, axis=1)
