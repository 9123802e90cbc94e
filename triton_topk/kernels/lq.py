"""The generalised cross-entropy Lq inside a kernel, from the (largest, sum) summary of a softmax.

With the others' largest score m and total = sum_{i != y} exp(s_i - m), the odds against the label are
exp(m - s_y) total, log p_y = -softplus(z) and 1 - p_y = sigmoid(z) of their logarithm z:

    L = (1 - p_y^q) / q      -dL/ds_y = p_y^q (1 - p_y)      dL/ds_i = -dL/ds_y exp(s_i - m) / total
"""

import triton
import triton.language as tl

from triton_topk.kernels.logistic import LOG2_E, exp2, logistic

# Stands for a masked class where a difference of two -inf would be NaN.
LOWEST = tl.constexpr(-1.0e38)


@triton.jit
def softmax_weight(x, largest):
    """exp(x - largest), rounded as smooth_svm.weigh is."""
    return tl.exp2(tl.fma(x - largest, tl.full([1], LOG2_E, x.dtype), 0.0))


@triton.jit
def lq_row(total, largest, s_y, q, cut, truncated, TRUNCATED: tl.constexpr):
    """The loss and -dL/ds_y.  q: float64; cut: -log of the truncation, beyond which the loss is `truncated`."""
    minus_log_p, miss = logistic(largest.to(tl.float64) - s_y.to(tl.float64), total)
    # (1 - p^q) / q = -log p (1 - exp(-x)) / x, where the last factor goes to 1 with q
    x = tl.where(q > 0, q * minus_log_p, 0.0)
    p_to_q = exp2(-x * LOG2_E, total.dtype)
    x = x.to(total.dtype)
    minus_log_p = minus_log_p.to(total.dtype)
    # (1 - u) / -log u is that factor for the u there is, exp(-x) or not quite
    factor = tl.where(p_to_q == 1.0, 1.0, (1.0 - p_to_q) / -tl.log(p_to_q))
    loss = tl.where(x > 1.0, (1.0 - p_to_q) / q.to(total.dtype), minus_log_p * factor)
    slope = p_to_q * miss
    if TRUNCATED:
        outside = minus_log_p >= cut
        loss = tl.where(outside, truncated, loss)
        slope = tl.where(outside, 0.0, slope)
    return loss, slope
