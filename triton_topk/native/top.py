"""Top's scores v_i are factors a_i + b_i y of the rows' polynomial, of which the larger of a_i and b_i is 1."""

import numpy as np

from triton_topk.native.arithmetic import exp2, largest, smallest, some
from triton_topk.native.compile import inline, jit
from triton_topk.native.lanes import LANES, ROWS
from triton_topk.native.polynomial import multiply, power
from triton_topk.native.vectors import convert, full, load, store, where

_LARGEST_EXPONENT = 1000.0


@jit
def include_surplus(m, rate, degree):
    """Let the rest include the scores that are equal to the least of Top and not in Top."""
    p, low = load(m.p, 0, ROWS), convert(load(m.low, 0, ROWS), m.p)
    more = load(m.surplus, 0, ROWS)
    zero, rates = full(0.0, p), full(rate, p)
    if some(more > zero):
        power(m.wide, exp2(smallest((low - p) * rates, zero)), more, degree)
        multiply(m.r, 0, m.wide, 0, degree)


@jit
def multiply_factors(m, t, rate, degree):
    """m.below[i] = r(y) times the factors of Top from i on.

    a_i = 2^-max(d_i, 0), b_i = 2^min(d_i, 0), d_i = (v_i - p) rate.
    """
    p = load(m.p, 0, ROWS)
    zero, one, rates = full(0.0, p), full(1.0, p), full(rate, p)
    width = degree + 1
    store(m.below, t * width * ROWS, one)
    for j in range(1, width):
        store(m.below, (t * width + j) * ROWS, load(m.r, j * LANES, ROWS))
    for i in range(t - 1, -1, -1):
        d = (convert(load(m.top, i * ROWS, ROWS), m.p) - p) * rates
        a, b = exp2(zero - largest(d, zero)), exp2(smallest(d, zero))
        store(m.a, i * ROWS, a)
        store(m.b, i * ROWS, b)
        multiply_factor(m.below, (i + 1) * width * ROWS, m.below, i * width * ROWS, a, b, width)


@inline
def multiply_factor(s, at, out, at_out, a, b, width):
    """out(y) = (a + b y) s(y), which may be in the same place."""
    last = full(0.0, a)
    for j in range(width):
        s_j = load(s, at + j * ROWS, ROWS)
        store(out, at_out + j * ROWS, a * s_j + b * last)
        last = s_j


@jit
def ratios(m, k, degree):
    """m.u[j] = u_j = sigma_{j-1} / sigma_j.

    Where sigma_j is 0 and j > k, fewer than j others have a weight, and u_j is infinite.  Where it is 0 and j <= k, u_j
    is 0: sigma_j is too small for float64, and sigma_{j-1} is smaller; or fewer than k others are left, and none is
    needed.
    """
    zero = full(0.0, load(m.p, 0, ROWS))
    for j in range(1, degree + 1):
        upper, lower = load(m.below, j * ROWS, ROWS), load(m.below, (j - 1) * ROWS, ROWS)
        none = full(0.0 if j <= k else np.inf, zero)
        store(m.u, j * ROWS, where(upper == zero, none, lower / upper))


@jit
def exact(m, t, k):
    """m.g[i] = P_k(i) - P_{k-1}(i) = a_i b_i (S'_{k-1}^2 - S'_k S'_{k-2}) / (S_k S_{k-1}), S' without score i."""
    zero, width = full(0.0, load(m.p, 0, ROWS)), k + 1
    S_k, S_below = load(m.below, k * ROWS, ROWS), load(m.below, (k - 1) * ROWS, ROWS)
    store(m.above, 0, full(1.0, zero))
    for j in range(1, width):
        store(m.above, j * ROWS, zero)
    for i in range(t):
        # S'_J = sum_j above_j below_{J-j}, J = k, k - 1, k - 2
        s0, s1, s2 = zero, zero, zero
        at = (i + 1) * width + k
        w0, w1 = load(m.below, at * ROWS, ROWS), load(m.below, (at - 1) * ROWS, ROWS)
        for j in range(width):
            w2 = load(m.below, (at - 2 - j) * ROWS, ROWS) if j + 2 <= k else zero
            above = load(m.above, j * ROWS, ROWS)
            s0, s1, s2 = s0 + above * w0, s1 + above * w1, s2 + above * w2
            w0, w1 = w1, w2
        a, b = load(m.a, i * ROWS, ROWS), load(m.b, i * ROWS, ROWS)
        difference = (s1 / S_k) * (s1 / S_below) - (s0 / S_k) * (s2 / S_below)
        store(m.g, i * ROWS, a * b * difference)
        multiply_factor(m.above, 0, m.above, 0, a, b, width)


@jit
def taylor(m, t, k, order, rate, threshold):
    """m.g[i] = P_k(i) - P_{k-1}(i) as the paper does it.

    Where e u_k is below a threshold, the recursion P_j = e u_j (1 - P_{j-1}), whose rounding grows as (e u_k)^k; else
    the series of order p that it gives downwards from P_{k+p-1} = 1, 1 - P_{j-1} = P_j / (e u_j).
    """
    p, u_k = load(m.p, 0, ROWS), load(m.u, k * ROWS, ROWS)
    zero, one = full(0.0, p), full(1.0, p)
    for i in range(t):
        d = (convert(load(m.top, i * ROWS, ROWS), m.p) - p) * full(rate, p)
        e = exp2(smallest(d, full(_LARGEST_EXPONENT, p)))
        P_below, P = zero, zero
        for j in range(1, k + 1):
            P_below, P = P, e * load(m.u, j * ROWS, ROWS) * (one - P)
        Q = zero
        for j in range(k + order - 1, k, -1):
            Q = (one - Q) / (e * load(m.u, j * ROWS, ROWS))
        Q_below = (one - Q) / (e * u_k)
        store(m.g, i * ROWS, where(full(threshold, p) > e * u_k, P - P_below, Q_below - Q))
