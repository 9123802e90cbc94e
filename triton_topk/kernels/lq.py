"""The generalised cross-entropy Lq is computed from the (largest, sum) summary of a softmax.

With the others' largest score m and total = sum_{i != y} exp(s_i - m), the odds against the label are
exp(m - s_y) total, log p_y = -softplus(z) and 1 - p_y = sigmoid(z) of their logarithm z:

    L = (1 - p_y^q) / q      -dL/ds_y = p_y^q (1 - p_y)      dL/ds_i = -dL/ds_y exp(s_i - m) / total
"""

import triton
import triton.language as tl

from triton_topk.kernels.lists import LOWEST
from triton_topk.kernels.logistic import LOG2_E, exp2, logistic


@triton.jit
def weigh(x, largest):
    """Return exp(x - largest), rounded as smooth_svm.weigh is."""
    return tl.exp2(tl.fma(x - largest, tl.full([1], LOG2_E, x.dtype), 0.0))


@triton.jit
def merge(v, total, largest):
    """Sum the exponentials of a row, from the largest scores v and the sums of its parts [ROWS, PARTS]."""
    weight = weigh(tl.maximum(v[0], LOWEST), largest)
    # rounded before lanes add up what they hold, so that all get the same sum
    return tl.sum(tl.fma(total, weight, 0.0), axis=1)


@triton.jit
def row_loss(largest, total, row, numbers, LOSS: tl.constexpr):
    """Return the loss and -dL/ds_y of a row."""
    dtype: tl.constexpr = total.dtype
    q = tl.full([1], numbers.q, tl.float64)
    minus_log_p, one_minus_p = logistic(
        largest.first.to(tl.float64) - row.score.to(tl.float64), total
    )
    # (1 - p^q) / q = -log p (1 - exp(-x)) / x, where the last factor goes to 1 with q
    x = tl.where(q > 0, q * minus_log_p, 0.0)
    p_to_q = exp2(-x * LOG2_E, dtype)
    x = x.to(dtype)
    minus_log_p = minus_log_p.to(dtype)
    # (1 - u) / -log u is that factor for the u there is, exp(-x) or not quite
    factor = tl.where(p_to_q == 1.0, 1.0, (1.0 - p_to_q) / -tl.log(p_to_q))
    loss = tl.where(x > 1.0, (1.0 - p_to_q) / q.to(dtype), minus_log_p * factor)
    slope = p_to_q * one_minus_p
    if LOSS.truncated:
        outside = minus_log_p >= tl.full([1], numbers.cut, dtype)
        loss = tl.where(outside, tl.full([1], numbers.truncated, dtype), loss)
        slope = tl.where(outside, 0.0, slope)
    return loss, slope


@triton.jit
def share(slope, total):
    """Return dL/ds_i / exp(s_i - m): 0, or NaN, where no other class is left.  slope: -dL/ds_y."""
    return tl.where(total == 0, slope, slope / total)
