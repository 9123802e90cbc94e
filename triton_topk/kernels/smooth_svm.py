"""The smooth top-k SVM loss inside a kernel.

Scores s, label y, others = all classes but y, e_i = exp(s_i / (k tau)), sigma_j = the j-th elementary
symmetric polynomial of the others' e:

    L = tau softplus(z)      z = (margin + (p - s_y) / k) / tau - log u_k      u_j = sigma_{j-1} / sigma_j
    dL/ds_y = -g / k         dL/ds_i = (g / k) (P_k(i) - P_{k-1}(i))           g = sigmoid(z)

with every e relative to the pivot p, the k-th largest of the others.  The others above the floor, the TOP-th
largest, are treated one by one (Top in docs/algorithm.md), the rest by their polynomial r.  Exponents are in
units of log 2.  Row quantities have the shape [ROWS], scores [ROWS, LANES], a lane's polynomial and its
candidates [ROWS, GROUP].
"""

import triton
import triton.language as tl

from triton_topk.kernels.logistic import reciprocal
from triton_topk.kernels.polynomial import include, product_over_lanes

# exp2 of it is still in range after a multiplication by u_j.
_EXPONENT_CAP = tl.constexpr(115.0)
_TINY = tl.constexpr(1e-30)


@triton.jit
def weigh(x, p, rate):
    """e = exp((x - p) / (k tau)); the difference first, so that a small tau costs no digits."""
    return tl.exp2((x - p) * rate)


@triton.jit
def include_rest(r, e, x, floor):
    """Multiply the scores that are not above the floor into r.  NaN counts as rest and so reaches its row."""
    return include(r, tl.where(x > floor[:, None], 0.0, e))


@triton.jit
def rest_polynomial(r, K: tl.constexpr, REDUCIBLE: tl.constexpr, SCALED: tl.constexpr):
    """r_j = s^j sigma_j(rest), and log2 s.

    If SCALED, s = 2^-ceil(log2(r_1 / k)) or 1 bounds r_j by k^j / j!, and is exact; else r_j is in range anyhow.
    """
    log2_s = tl.zeros([r[0].shape[0]], r[0].dtype)
    if SCALED:
        log2_s = log2_scale(r[0], K)
        r = rescale(r, tl.exp2(log2_s)[:, None])
    return product_over_lanes(r, REDUCIBLE), log2_s


@triton.jit
def log2_scale(first, K: tl.constexpr):
    """log2 s of rest_polynomial's s, from what the lanes have of r_1."""
    return -tl.ceil(tl.log2(tl.maximum(tl.sum(first, axis=1) / K, 1.0)))


@triton.jit
def rescale(r, s):
    """s^j r_j: the polynomial of s e."""
    power = s
    out = ()
    for j in tl.static_range(len(r)):
        out = out + (r[j] * power,)
        power = power * s
    return out


@triton.jit
def top_exponents(v, floor, p, log2_s, rate):
    """log2(s e) of the largest scores v but the floor; -inf for those not above it, which are not of Top."""
    d = ()
    for i in tl.static_range(len(v) - 1):
        d = d + (tl.where(v[i] > floor, (v[i] - p) * rate + log2_s, float("-inf")),)
    return d


@triton.jit
def combine(r, d):
    """S_0, S_1, ...: the coefficients of r(y) times the factors of Top, all positive, proportional to s^j sigma_j."""
    S = r
    for i in tl.static_range(len(d)):
        S = _times(S, d[i])
    return S


@triton.jit
def _times(S, d):
    """S(y) (a + b y), proportional to 1 + 2^d y; the larger of a and b is 1."""
    a = tl.exp2(-tl.maximum(d, 0.0))
    b = tl.exp2(tl.minimum(d, 0.0))
    out = (S[0] * a,)
    for j in tl.static_range(1, len(S)):
        out = out + (tl.fma(b, S[j - 1], S[j] * a),)
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
def top_gradient(V, r, d, S, p, log2_s, rate, K: tl.constexpr):
    """P_K(i) - P_{K-1}(i) of V, one of Top, from the polynomial S' of all others but this one.

    With its factor a + b y, S_J = a S'_J + b S'_{J-1}: so P_J = b S'_{J-1} / S_J and 1 - P_J = a S'_J / S_J.
    """
    own = (V - p[:, None]) * rate + log2_s[:, None]
    without = ()
    for j in tl.static_range(len(r)):
        without = without + (r[j][:, None],)
    for i in tl.static_range(len(d) - 1):
        # the exponents without one that is its own
        without = _times(without, tl.where(d[i][:, None] > own, d[i][:, None], d[i + 1][:, None]))
    one_over_K = reciprocal(S[K])[:, None]
    one_over_below = reciprocal(S[K - 1])[:, None]
    first = (without[K - 1] * one_over_K) * (without[K - 1] * one_over_below)
    second = (without[K] * one_over_K) * (without[K - 2] * one_over_below)
    return tl.exp2(-tl.abs(own)) * (first - second)


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
