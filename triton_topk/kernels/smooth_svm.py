"""The smooth top-k SVM loss inside a kernel.

Scores s, label y, others = all classes but y, e_i = exp(s_i / (k tau)), sigma_j = the j-th elementary
symmetric polynomial of the others' e:

    L = tau softplus(z)      z = (margin + (p - s_y) / k) / tau - log u_k      u_j = sigma_{j-1} / sigma_j
    dL/ds_y = -g / k         dL/ds_i = (g / k) (P_k(i) - P_{k-1}(i))           g = sigmoid(z)

with every e relative to the pivot p, the k-th largest of the others.  The TOP largest of the others are treated one by
one (Top in docs/algorithm.md), the rest by their polynomial r.  The last of Top is the floor.  Exponents are in
units of log 2.  Row quantities have the shape [ROWS], scores [ROWS, LANES], a lane's polynomial and its
candidates [ROWS, GROUP].
"""

import triton
import triton.language as tl

from triton_topk.kernels.logistic import reciprocal
from triton_topk.kernels.polynomial import include, multiply, product_over_lanes

# exp2 of it is still in range after a multiplication by u_j.
_EXPONENT_CAP = tl.constexpr(115.0)
_TINY = tl.constexpr(1e-30)


@triton.jit
def weigh(x, p, rate):
    """e = exp((x - p) / (k tau)); the difference first, so that a small tau costs no digits.

    The product is rounded by itself: the compiler would fuse it with the first step of float64's exp2 for some of a
    lane's scores, and not for others.
    """
    return tl.exp2(tl.fma(x - p, rate, 0.0))


@triton.jit
def floor_of(v):
    """The last of Top, or where classes are masked a number that all others' scores are above."""
    LOWEST: tl.constexpr = -1.7e308 if v[0].dtype == tl.float64 else -3.4e38
    last = v[len(v) - 1]
    return tl.where(last > float("-inf"), last, LOWEST)


@triton.jit
def include_rest(r, count, e, x, floor, K: tl.constexpr):
    """Multiply the scores below the floor into r, and count the others.  NaN counts as below and so reaches its row."""
    if K > 1:
        large = x >= floor[:, None]
        e = tl.where(large, 0.0, e)
        count += large.to(tl.int32)
    return include(r, e), count


@triton.jit
def beyond_top(count, more, TOP: tl.constexpr, K: tl.constexpr):
    """How many scores equal to the floor are not of Top, of `count` in the lanes that are not below it, and
    whether any score is: one of those, or one of `more`, which is whether a lane has other scores equal to it."""
    MANY: tl.constexpr = 2**16  # no row has as many candidates
    total = tl.sum(count + more.to(tl.int32) * MANY, axis=1)
    ALL: tl.constexpr = TOP if K > 1 else 0
    # masked classes leave fewer than Top
    return tl.maximum(total % MANY - ALL, 0), total != ALL


@triton.jit
def rest_polynomial(r, equal, e, K: tl.constexpr, REDUCIBLE: tl.constexpr, SCALED: tl.constexpr):
    """r_j = s^j sigma_j(rest), and log2 s: of the scores in the lanes, and `equal` more with the exponential e.

    If SCALED, s = 2^-ceil(log2(r_1 / k)) or 1 bounds r_j by k^j / j!, and is exact; else r_j is in range anyhow.
    """
    log2_s = tl.zeros_like(e)
    if SCALED:
        log2_s = log2_scale(tl.sum(r[0], axis=1) + equal * e, K)
        r = rescale(r, tl.exp2(log2_s)[:, None])
    r = product_over_lanes(r, REDUCIBLE)
    if K > 1:
        r = include_equal(r, equal, e * tl.exp2(log2_s))
    return r, log2_s


@triton.jit
def log2_scale(r_1, K: tl.constexpr):
    """log2 s of rest_polynomial's s."""
    return -tl.ceil(tl.log2(tl.maximum(r_1 / K, 1.0)))


@triton.jit
def include_equal(r, equal, e):
    """r(y) (1 + e y)^m of m = `equal` scores with the exponential e: its coefficients are e^j binom(m, j)."""
    # seldom any.  Once at most: a branch would have Triton 3.6 move every number of a row between layouts later
    for _ in range(tl.minimum(tl.max(equal, axis=0), 1)):
        binomial = e * equal
        power = (binomial,)
        for j in tl.static_range(1, len(r)):
            binomial *= e * tl.maximum(equal - j, 0) * (1.0 / (j + 1))
            power = power + (binomial,)
        r = multiply(r, power)
    return r


@triton.jit
def rescale(r, s):
    """s^j r_j, the polynomial of s e; rounded before lanes add up what they hold, so that all get the same sum."""
    power = s
    out = ()
    for j in tl.static_range(len(r)):
        out = out + (tl.fma(r[j], power, 0.0),)
        power = power * s
    return out


@triton.jit
def factors(v, p, log2_s, rate, K: tl.constexpr, SCALED: tl.constexpr):
    """a and b of Top's factors a + b y, proportional to 1 + s e y; the larger of both is 1.

    v: Top, descending.  Below the pivot a is 1, and left out; above it b, if not SCALED.
    """
    a = ()
    b = ()
    for i in tl.static_range(len(v) if K > 1 else 0):
        d = (v[i] - p) * rate + log2_s
        if i < K:
            a = a + (tl.exp2(-tl.maximum(d, 0.0)),)
        if SCALED or i >= K - 1:
            b = b + (tl.exp2(tl.minimum(d, 0.0)),)
    return a, b


@triton.jit
def combine(r, a, b, K: tl.constexpr, SCALED: tl.constexpr):
    """r(y) times the factors: the coefficients, all positive, are proportional to s^j sigma_j."""
    LEFT_OUT: tl.constexpr = 0 if SCALED else K - 1
    for i in tl.static_range(LEFT_OUT + len(b)):
        if i < LEFT_OUT:
            r = _times(r, a[i], 1.0)
        elif i < K - 1:
            r = _times(r, a[i], b[i])
        else:
            r = _times(r, 1.0, b[i - LEFT_OUT])
    return r


@triton.jit
def _times(r, a, b):
    """r(y) (a + b y)."""
    out = (r[0] * a,)
    for j in tl.static_range(1, len(r)):
        out = out + (r[j] * a + r[j - 1] * b,)
    return out


@triton.jit
def ratios(S, s, K: tl.constexpr):
    """u_j = sigma_{j-1} / sigma_j in pivot units."""
    u = ()
    for J in tl.static_range(1, len(S)):
        # Where fewer than J others are left sigma_J = 0: for the Taylor series that is u_J = inf, and up to K
        # any number does, since the gradient is 0.  Beside a score far above the pivot S_J of a
        # small J vanishes, and u_J beside u_K.
        nothing = 0.0 if J <= K else float("inf")
        u = u + (tl.where(S[J] < _TINY, nothing, s * S[J - 1] * reciprocal(S[J])),)
    return u


@triton.jit
def top_gradient(V, r, a, b, S, p, log2_s, rate, K: tl.constexpr, SCALED: tl.constexpr):
    """P_K(i) - P_{K-1}(i) of V, one of Top, from the polynomial S' of all others but this one.

    With its factor a + b y, S_J = a S'_J + b S'_{J-1}: so P_J = b S'_{J-1} / S_J and 1 - P_J = a S'_J / S_J.
    """
    d = (V - p[:, None]) * rate + log2_s[:, None]
    own_a = tl.exp2(-tl.maximum(d, 0.0))
    own_b = tl.exp2(tl.minimum(d, 0.0))
    without = ()
    for j in tl.static_range(len(r)):
        without = without + (r[j][:, None],)
    # the factors without its own: from there on the next one
    other_a = ()
    for i in tl.static_range(len(a) - 1):
        here = a[i][:, None]
        other_a = other_a + (tl.where(here < own_a, here, a[i + 1][:, None]),)
    other_b = ()
    for i in tl.static_range(len(b) - 1):
        here = b[i][:, None]
        other_b = other_b + (tl.where(here > own_b, here, b[i + 1][:, None]),)
    without = combine(without, other_a, other_b, K, SCALED)
    one_over_K = reciprocal(S[K])[:, None]
    one_over_below = reciprocal(S[K - 1])[:, None]
    first = (without[K - 1] * one_over_K) * (without[K - 1] * one_over_below)
    second = (without[K] * one_over_K) * (without[K - 2] * one_over_below)
    return own_a * own_b * (first - second)


@triton.jit
def top_gradient_taylor(V, u, p, rate, K: tl.constexpr, THRESHOLD: tl.constexpr):
    """P_K(i) - P_{K-1}(i) of every i in Top as the paper does it (section 3.3 and appendix D).

    Where e u_K < THRESHOLD the recursion P_j = e u_j (1 - P_{j-1}); else the series of order p that this
    recursion gives downwards from P_{K+p-1} = 1: 1 - P_{j-1} = P_j / (e u_j).
    """
    e = tl.exp2(tl.minimum((V - p[:, None]) * rate, _EXPONENT_CAP))
    P_below = tl.zeros_like(V)
    P = e * u[0][:, None]
    for j in tl.static_range(1, K):
        P_below = P
        P = e * u[j][:, None] * (1.0 - P_below)
    Q = tl.zeros_like(V)
    for i in tl.static_range(len(u) - K):
        Q = (1.0 - Q) / (e * u[len(u) - 1 - i][:, None])
    Q_below = (1.0 - Q) / (e * u[K - 1][:, None])
    return tl.where(e * u[K - 1][:, None] < THRESHOLD, P - P_below, Q_below - Q)


@triton.jit
def gradient_polynomial(u, g, K: tl.constexpr):
    """Coefficients of g (P_K - P_{K-1}) in e: g (-1)^(m-1) u_{K-1} ... u_{K-m+1} (u_K - u_{K-m}), u_0 = 0."""
    out = ()
    product = g
    for m in tl.static_range(1, K):
        out = out + (product * (u[K - 1] - u[K - 1 - m]),)
        product = -product * u[K - 1 - m]
    return out + (product * u[K - 1],)


@triton.jit
def horner(coefficients, e):
    """sum_m c_m e^m, m = 1..K."""
    total = coefficients[len(coefficients) - 1][:, None] * e
    for i in tl.static_range(1, len(coefficients)):
        total = (total + coefficients[len(coefficients) - 1 - i][:, None]) * e
    return total
