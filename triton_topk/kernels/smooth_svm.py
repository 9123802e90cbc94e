"""The smooth top-k SVM loss inside a kernel.

Scores s, label y, others = all classes but y, e_i = exp(s_i / (k tau)), sigma_j = the j-th elementary
symmetric polynomial of the others' e:

    L = tau softplus(z)      z = (margin + (p - s_y) / k) / tau - log u_k      u_j = sigma_{j-1} / sigma_j
    dL/ds_y = -g / k         dL/ds_i = (g / k) (P_k(i) - P_{k-1}(i))           g = sigmoid(z)

with every e relative to the pivot p, the k-th largest of the others.  The TOP largest others are
treated one by one (class Top of docs/algorithm.md), the rest by their polynomial r.  Exponents are in
units of log 2.  Row quantities have the shape [ROWS], scores [ROWS, LANES], Top [ROWS, SLOTS].
"""

import triton
import triton.language as tl

from triton_topk.kernels.polynomial import (
    include,
    multiply,
    powers_of_one,
    product_over_lanes,
)

# exp2 of it is still in range after a multiplication by u_j.
_EXPONENT_CAP = tl.constexpr(115.0)


@triton.jit
def weigh(x, p, rate):
    """e = exp((x - p) / (k tau)); the difference first, so that a small tau costs no digits."""
    return tl.exp2((x - p[:, None]) * rate)


@triton.jit
def include_rest(q, count, e, x, floor):
    """Multiply the rest (below the smallest of Top) into q; count Top and its ties.

    NaN counts as rest and so reaches every number of its row.
    """
    is_top = x >= floor[:, None]
    return include(q, tl.where(is_top, 0.0, e)), count + is_top.to(tl.int32)


@triton.jit
def rest_polynomial(q, count, e_floor, K: tl.constexpr, TOP: tl.constexpr, REDUCIBLE: tl.constexpr):
    """r_j = s^j sigma_j(all but Top), and log2 s.

    s = 2^-ceil(log2(r_1 / k)) or 1 bounds r_j by k^j / j!, and is exact.  Ties of Top's smallest value
    that are not in Top come in as (1 + e_floor y)^surplus.
    """
    surplus = (tl.sum(count, axis=1) - TOP).to(e_floor.dtype)
    first = tl.sum(q[0], axis=1) + surplus * e_floor
    log2_s = -tl.ceil(tl.log2(tl.maximum(first / K, 1.0)))
    s = tl.exp2(log2_s)
    power = s
    scaled = ()
    for j in tl.static_range(len(q)):
        scaled = scaled + (q[j] * power[:, None],)
        power = power * s
    r = product_over_lanes(scaled, REDUCIBLE)
    return multiply(r, powers_of_one(s * e_floor, surplus, len(q))), log2_s


@triton.jit
def top_polynomial(v, rate):
    """T_j = sigma_j(Top) / (product of Top's j largest): T_j += exp((v_i - v_j) / (k tau)) T_{j-1}."""
    # 1, or NaN where the largest score is +inf
    one = tl.exp2((v[0] - v[0]) * rate)
    T = (one,)
    for i in tl.static_range(len(v)):
        out = (one,)
        for j in tl.static_range(1, i + 1):
            out = out + (tl.fma(tl.exp2((v[i] - v[j - 1]) * rate), T[j - 1], T[j]),)
        T = out + (T[i],)
    return T


@triton.jit
def combine(T, r, v, p, log2_s, rate, K: tl.constexpr):
    """u_j = sigma_{j-1} / sigma_j in pivot units, the weights of Top at degree K, S_{K-1} and S_K.

    s^J sigma_J = sum_m T_m exp(D_m) r_{J-m}, D_m = d_1 + ... + d_m, d_i = (v_i - p) / (k tau) + log s, is kept
    as S_J relative to the largest exp(D_m), m <= J, whose log is the sum of the positive d_i, i <= J.
    weight_m is T_m exp(D_m) relative to that: the same at K - 1 and K, since d_K <= 0.
    """
    one = T[0]
    s = tl.exp2(log2_s)
    weight = (one,)
    weight_K = (one,)
    shrink = one
    S = one
    S_below = one
    S_K = one
    u = ()
    for J in tl.static_range(1, len(r) + 1):
        step = one
        if J < len(T):
            d = (v[J - 1] - p) * rate + log2_s
            step = tl.exp2(-tl.maximum(d, 0.0))
            shrink = shrink * tl.exp2(tl.minimum(d, 0.0))
            stepped = ()
            for m in tl.static_range(J):
                stepped = stepped + (weight[m] * step,)
            weight = stepped + (T[J] * shrink,)
        S_J = _degree(weight, r, J)
        # Where fewer than J others are left sigma_J = 0: for the Taylor series that is u_J = inf, and up to K
        # any number does, since the gradient is 0.
        nothing = 0.0 if J <= K else float("inf")
        u = u + (tl.where(S_J == 0, nothing, s * (S / S_J) * step),)
        if J == K:
            weight_K = weight
            S_below = S
            S_K = S_J
        S = S_J
    return u, weight_K, S_below, S_K


@triton.jit
def _degree(weight, r, J: tl.constexpr):
    """sum_m weight_m r_{J-m}."""
    total = tl.zeros_like(weight[0])
    for m in tl.static_range(len(weight)):
        if m == J:
            total += weight[m]
        elif m < J:
            total = tl.fma(weight[m], r[J - m - 1], total)
    return total


@triton.jit
def _power(V, v_j, rate):
    """exp((V - v_j) / (k tau)), in range."""
    return tl.exp2(tl.minimum((V - v_j[:, None]) * rate, _EXPONENT_CAP))


@triton.jit
def _include_term(total, weight, r, m: tl.constexpr, J: tl.constexpr):
    """total + weight_m r_{J-m}."""
    if m < J:
        return tl.fma(weight, r[J - m - 1][:, None], total)
    elif m == J:
        return total + weight
    else:
        return total


@triton.jit
def top_gradient(V, T, weight, r, S_below, S_K, v, p, log2_s, rate, K: tl.constexpr):
    """P_K(i) - P_{K-1}(i) of every i in Top, from leave-one-out polynomials of Top.

    keep_j = sigma_j(Top without i) / sigma_j(Top) = 1 - P_j, P_j = w_j keep_{j-1}, w_j = e_i T_{j-1} / T_j, upwards
    from keep_0 = 1 while P_j <= 1/2, and downwards from keep_TOP = 0, keep_{j-1} = (1 - keep_j) / w_j, beyond:
    each is stable where it is used, since P_j grows with j.  Then, of all others,
    A_J = S_J without i = sum_m weight_m keep_m r_{J-m}, 1 - P_J = A_J / S_J, P_J = s e_i A_{J-1} / S_J, of which
    the one that is 1/2 at most is taken.
    """
    TOP: tl.constexpr = len(v)
    down = (tl.zeros_like(V),)  # keep_TOP, keep_{TOP-1}, ...
    for i in tl.static_range(TOP - 1):
        w = _power(V, v[TOP - 1 - i], rate) * (T[TOP - 1 - i] / T[TOP - i])[:, None]
        down = down + ((1.0 - down[i]) / w,)
    P = tl.zeros_like(V)
    keep = P + 1.0
    first = weight[0][:, None] * keep
    A_K = _include_term(P, first, r, 0, K)
    A_below = _include_term(P, first, r, 0, K - 1)
    A_2 = _include_term(P, first, r, 0, K - 2)
    for m in tl.static_range(1, K + 1):
        w = _power(V, v[m - 1], rate) * (T[m - 1] / T[m])[:, None]
        P = tl.maximum(P, w * keep)
        keep = tl.where(P <= 0.5, 1.0 - P, down[TOP - m])
        kept = weight[m][:, None] * keep
        A_K = _include_term(A_K, kept, r, m, K)
        A_below = _include_term(A_below, kept, r, m, K - 1)
        A_2 = _include_term(A_2, kept, r, m, K - 2)
    e = _power(V, p, rate) * tl.exp2(log2_s)[:, None]
    not_K = A_K / S_K[:, None]
    not_below = A_below / S_below[:, None]
    P_K = tl.where(not_K <= 0.5, 1.0 - not_K, e * (A_below / S_K[:, None]))
    P_below = tl.where(not_below <= 0.5, 1.0 - not_below, e * (A_2 / S_below[:, None]))
    return P_K * not_below - P_below * not_K


@triton.jit
def top_gradient_taylor(V, u, p, rate, K: tl.constexpr, THRESHOLD: tl.constexpr):
    """P_K(i) - P_{K-1}(i) of every i in Top as the paper does it (section 3.3 and appendix D).

    Where e u_K < THRESHOLD the recursion P_j = e u_j (1 - P_{j-1}); else the series of order p that this
    recursion gives downwards from P_{K+p-1} = 1: 1 - P_{j-1} = P_j / (e u_j).
    """
    e = _power(V, p, rate)
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


@triton.jit
def stack(values, SLOTS: tl.constexpr):
    """[ROWS, SLOTS] of row quantities; further slots repeat the last."""
    slot = tl.arange(0, SLOTS)[None, :]
    out = values[len(values) - 1][:, None] + tl.zeros([1, SLOTS], values[0].dtype)
    for i in tl.static_range(len(values) - 1):
        out = tl.where(slot == i, values[i][:, None], out)
    return out


@triton.jit
def last_top(G, LAST: tl.constexpr):
    slot = tl.arange(0, G.shape[1])[None, :]
    return tl.sum(tl.where(slot == LAST, G, 0.0), axis=1)
