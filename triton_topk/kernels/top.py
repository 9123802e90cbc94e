"""The gradients of Top, which is among the candidates, are computed one by one."""

import triton
import triton.language as tl

from triton_topk.kernels import lq, select, smooth_svm, taylor
from triton_topk.kernels.logistic import reciprocal


@triton.jit
def gradients(candidates, largest, tied, polynomials, slope, share, rate, LOSS: tl.constexpr):
    """Return the gradient of each candidate that is of Top, and its column; all others have NO_COLUMN.

    tied: whether scores that are not of Top are equal to the floor.  All that are equal to it are then left to the
    polynomial that the gradient of those is.
    """
    out = candidates.scores
    columns = ()
    count = tl.zeros(out[0].shape, tl.int32)
    not_top = tl.where(tied, largest.floor, float("nan"))[:, None]
    for i in tl.static_range(len(out)):
        is_top = (out[i] >= largest.floor[:, None]) & (out[i] != not_top)
        # a column below 0 is still to come: its complement
        columns = columns + (tl.where(is_top, ~candidates.columns[i], select.NO_COLUMN),)
        count += is_top.to(tl.int32)
    # one of each lane at a time; seldom more than once
    for _ in range(tl.max(tl.max(count, axis=1), axis=0)):
        V = tl.full(count.shape, float("-inf"), out[0].dtype)
        for i in tl.static_range(len(out)):
            V = tl.maximum(V, tl.where(columns[i] < 0, out[i], float("-inf")))
        if LOSS.threshold is None:
            G = _gradient(V, polynomials, largest.p, rate, LOSS)
        else:
            G = taylor.top_gradient(V, polynomials.u, largest.p, rate, LOSS)
        G = tl.where(largest.few[:, None], slope[:, None], slope[:, None] * G)
        if LOSS.lq:
            G += share[:, None] * lq.weigh(V, largest.first[:, None])
        found = ()
        left = ()
        for i in tl.static_range(len(out)):
            is_V = (columns[i] < 0) & (out[i] == V)
            found = found + (tl.where(is_V, G, out[i]),)
            left = left + (tl.where(is_V, ~columns[i], columns[i]),)
        out = found
        columns = left
    return out, columns


@triton.jit
def _gradient(V, polynomials, p, rate, LOSS: tl.constexpr):
    """Return P_K(i) - P_{K-1}(i) for V, one of Top, from the polynomial S' of all others without it.

    With its factor a + b y, S_J = a S'_J + b S'_{J-1}: so P_J = b S'_{J-1} / S_J and 1 - P_J = a S'_J / S_J.
    """
    K: tl.constexpr = LOSS.k
    r, a, b, S = polynomials.r, polynomials.a, polynomials.b, polynomials.S
    d = (V - p[:, None]) * rate + polynomials.log2_s[:, None]
    a_V = tl.exp2(-tl.maximum(d, 0.0))
    b_V = tl.exp2(tl.minimum(d, 0.0))
    without = ()
    for j in tl.static_range(len(r)):
        without = without + (r[j][:, None],)
    # the factors without that of V: from there on the next one
    other_a = ()
    for i in tl.static_range(len(a) - 1):
        a_i = a[i][:, None]
        other_a = other_a + (tl.where(a_i < a_V, a_i, a[i + 1][:, None]),)
    other_b = ()
    for i in tl.static_range(len(b) - 1):
        b_i = b[i][:, None]
        other_b = other_b + (tl.where(b_i > b_V, b_i, b[i + 1][:, None]),)
    without = smooth_svm.combine(without, other_a, other_b, LOSS)
    one_over_K = reciprocal(S[K])[:, None]
    one_over_below = reciprocal(S[K - 1])[:, None]
    first = (without[K - 1] * one_over_K) * (without[K - 1] * one_over_below)
    second = (without[K] * one_over_K) * (without[K - 2] * one_over_below)
    return a_V * b_V * (first - second)
