"""The smooth top-k SVM loss is computed from elementary symmetric polynomials.

With scores s, label y, others = all classes but y, e_i = exp(s_i / (k tau)), sigma_j = the j-th elementary
symmetric polynomial of the others' e:

    L = tau softplus(z)      z = (margin + (p - s_y) / k) / tau - log u_k      u_j = sigma_{j-1} / sigma_j
    dL/ds_y = -g / k         dL/ds_i = (g / k) (P_k(i) - P_{k-1}(i))           g = sigmoid(z)

with every e relative to the pivot p, the k-th largest of the others.  The TOP largest of the others are treated one by
one (Top in docs/algorithm.md), the rest by their polynomial r.  The last of Top is the floor.  Exponents are in
units of log 2.  Row quantities have the shape [ROWS], scores [ROWS, LANES], a lane's polynomial and its
candidates [ROWS, GROUP].
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from triton_topk.kernels import lists
from triton_topk.kernels.logistic import logistic, reciprocal
from triton_topk.kernels.polynomial import include, multiply, product_over_lanes

_TINY = tl.constexpr(1e-30)


class Polynomials(NamedTuple):
    """The polynomials of a row have coefficients [ROWS]; see factors and combine."""

    r: Any  # s^j sigma_j of the rest, from j = 0 on
    log2_s: Any  # of that s, a power of two
    a: Any
    b: Any  # Top's factors are a + b y
    S: Any  # proportional to s^j sigma_j of the others
    u: Any  # u_1, u_2, ... in pivot units


@triton.jit
def weigh(x, p, rate):
    """Return e = exp((x - p) / (k tau)); the difference comes first, so that a small tau costs no digits.

    The product is rounded by itself: the compiler would fuse it with the first step of float64's exp2 for some of a
    lane's scores, and not for others.
    """
    return tl.exp2(tl.fma(x - p, rate, 0.0))


@triton.jit
def include_below(r, count, e, x, floor, LOSS: tl.constexpr):
    """Multiply the scores below the floor into r, and count the others.  NaN counts as below and so reaches its row."""
    if LOSS.k > 1:
        large = x >= floor[:, None]
        e = tl.where(large, 0.0, e)
        count += large.to(tl.int32)
    return include(r, e), count


@triton.jit
def beyond_top(count, ties_left, LOSS: tl.constexpr):
    """Return how many scores equal to the floor are not of Top, and whether there are any in the row.

    count: of each lane's scores, those that are not below the floor; ties_left: whether it has others equal to it.
    """
    MANY: tl.constexpr = 2**16  # no row has as many candidates
    total = tl.sum(count + ties_left.to(tl.int32) * MANY, axis=1)
    ALL: tl.constexpr = LOSS.top if LOSS.k > 1 else 0
    # masked classes leave fewer than Top
    return tl.maximum(total % MANY - ALL, 0), total != ALL


@triton.jit
def rest_polynomial(r, equal, e, LOSS: tl.constexpr):
    """Return r_j = s^j sigma_j(rest) and log2 s, for the scores in the lanes and `equal` ones with the exponential e.

    If SCALED, s = 2^-ceil(log2(r_1 / k)) or 1 bounds r_j by k^j / j!, and is exact; else r_j is in range anyhow.
    """
    log2_s = tl.zeros_like(e)
    if LOSS.scaled:
        log2_s = log2_scale(tl.sum(r[0], axis=1) + equal * e, LOSS)
        r = rescale(r, tl.exp2(log2_s)[:, None])
    r = product_over_lanes(r, LOSS.reducible)
    if LOSS.k > 1:
        r = include_equal(r, equal, e * tl.exp2(log2_s))
    return r, log2_s


@triton.jit
def log2_scale(r_1, LOSS: tl.constexpr):
    """Return log2 s for rest_polynomial's s."""
    return -tl.ceil(tl.log2(tl.maximum(r_1 / LOSS.k, 1.0)))


@triton.jit
def include_equal(r, equal, e):
    """Multiply r(y) by (1 + e y)^m, m = `equal`, whose coefficients are e^j binom(m, j)."""
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
    """Return s^j r_j, the polynomial of s e, rounded before lanes add up what they hold: all get the same sum."""
    power = s
    out = ()
    for j in tl.static_range(len(r)):
        out = out + (tl.fma(r[j], power, 0.0),)
        power = power * s
    return out


@triton.jit
def factors(largest, log2_s, rate, LOSS: tl.constexpr):
    """Return a and b of Top's factors a + b y, which are proportional to 1 + s e y; the larger of both is 1.

    Below the pivot a is 1, and left out; above it b, if not SCALED.
    """
    a = ()
    b = ()
    for i in tl.static_range(LOSS.top if LOSS.k > 1 else 0):
        d = (largest.v[i] - largest.p) * rate + log2_s
        if i < LOSS.k:
            a = a + (tl.exp2(-tl.maximum(d, 0.0)),)
        if LOSS.scaled or i >= LOSS.k - 1:
            b = b + (tl.exp2(tl.minimum(d, 0.0)),)
    return a, b


@triton.jit
def combine(r, a, b, LOSS: tl.constexpr):
    """Multiply r(y) by the factors: the coefficients, all positive, are proportional to s^j sigma_j."""
    LEFT_OUT: tl.constexpr = 0 if LOSS.scaled else LOSS.k - 1
    for i in tl.static_range(LEFT_OUT + len(b)):
        if i < LEFT_OUT:
            r = _times(r, a[i], 1.0)
        elif i < LOSS.k - 1:
            r = _times(r, a[i], b[i])
        else:
            r = _times(r, 1.0, b[i - LEFT_OUT])
    return r


@triton.jit
def _times(r, a, b):
    """Multiply r(y) by a + b y."""
    out = (r[0] * a,)
    for j in tl.static_range(1, len(r)):
        out = out + (r[j] * a + r[j - 1] * b,)
    return out


@triton.jit
def ratios(S, s, LOSS: tl.constexpr):
    """Return u_j = sigma_{j-1} / sigma_j in pivot units."""
    u = ()
    for J in tl.static_range(1, len(S)):
        # Where fewer than J others are left sigma_J = 0: for the Taylor series that is u_J = inf, and up to K
        # any number does, since the gradient is 0.  Beside a score far above the pivot S_J of a
        # small J vanishes, and u_J beside u_K.
        limit = 0.0 if J <= LOSS.k else float("inf")
        u = u + (tl.where(S[J] < _TINY, limit, s * S[J - 1] * reciprocal(S[J])),)
    return u


@triton.jit
def merge(v, r, log2_s, tied, pivot, floor, rate, LOSS: tl.constexpr):
    """Merge the polynomials of a row's parts [ROWS, PARTS]; return r_j, log2 s, and whether the floor is tied.

    v: the TOP largest scores of each part.  Those below the row's floor are multiplied into its polynomial.
    """
    p = v[LOSS.k - 1]
    pivot = tl.maximum(pivot, lists.LOWEST)
    # in terms of the row's pivot an e of a part is 2^shift of what it was
    shift = (tl.maximum(p, lists.LOWEST) - pivot[:, None]) * rate - log2_s
    count = tl.zeros(shift.shape, tl.int32)
    e = ()
    first = r[0] * tl.exp2(shift)
    if LOSS.k > 1:
        for i in tl.static_range(LOSS.top):
            large = v[i] >= floor[:, None]
            count += large.to(tl.int32)
            e = e + (tl.where(large, 0.0, weigh(v[i], pivot[:, None], rate)),)
            first += e[i]
    ties_left = (tied > 0) & (v[LOSS.top - 1] == floor[:, None])
    equal, tied = beyond_top(count, ties_left, LOSS)
    e_floor = weigh(floor, pivot, rate)
    log2_s = tl.zeros_like(pivot)
    if LOSS.scaled:
        log2_s = log2_scale(tl.sum(first, axis=1) + equal * e_floor, LOSS)
    r = rescale(r, tl.exp2(shift + log2_s[:, None]))
    for i in tl.static_range(len(e)):
        r = include(r, e[i] * tl.exp2(log2_s)[:, None])
    r = product_over_lanes(r, LOSS.reducible)
    if LOSS.k > 1:
        r = include_equal(r, equal, e_floor * tl.exp2(log2_s))
    return r, log2_s, tied


@triton.jit
def row_loss(largest, rest, row, numbers, LOSS: tl.constexpr):
    """Return the loss and -dL/ds_y of a row, and its polynomials."""
    s_y = row.score
    r = (tl.full(s_y.shape, 1.0, s_y.dtype),) + rest.r
    a, b = factors(largest, rest.log2_s, numbers.rate, LOSS)
    S = combine(r, a, b, LOSS)
    u = ratios(S, tl.exp2(rest.log2_s), LOSS)
    # in float64: where tau is small, margin + (p - s_y) / k cancels, and z may be larger than tau z
    linear = (row.margin + (largest.p.to(tl.float64) - s_y.to(tl.float64))) * numbers.inverse
    loss, slope = logistic(linear, reciprocal(u[LOSS.k - 1]))
    trivial = 0.0 * (r[0] + r[1] + s_y)
    loss = (tl.full([1], numbers.tau, tl.float64) * loss).to(s_y.dtype)
    loss = tl.where(largest.few, trivial, loss)
    slope = tl.where(largest.few, trivial, slope / LOSS.k)
    return loss, slope, Polynomials(r, rest.log2_s, a, b, S, u)


@triton.jit
def gradient_polynomial(u, g, K: tl.constexpr):
    """Return g (P_K - P_{K-1}) as coefficients of e^m: g (-1)^(m-1) u_{K-1} ... u_{K-m+1} (u_K - u_{K-m}), u_0 = 0."""
    out = ()
    product = g
    for m in tl.static_range(1, K):
        out = out + (product * (u[K - 1] - u[K - 1 - m]),)
        product = -product * u[K - 1 - m]
    return out + (product * u[K - 1],)


@triton.jit
def gradient(e, coefficients):
    """Return dL/ds_i of scores that are not of Top: sum_m c_m e^m, m = 1..K."""
    total = coefficients[len(coefficients) - 1][:, None] * e
    for i in tl.static_range(1, len(coefficients)):
        total = (total + coefficients[len(coefficients) - 1 - i][:, None]) * e
    return total
