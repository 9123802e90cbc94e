"""The gradient of Top, one by one, and where that of candidates goes."""

import triton
import triton.language as tl

from triton_topk.kernels import lq, smooth_svm


@triton.jit
def gradient_of(
    V,
    polynomials,
    soft,
    svm_g,
    few,
    rate,
    LQ: tl.constexpr,
    K: tl.constexpr,
    THRESHOLD: tl.constexpr,
):
    """The gradient of scores V that are above the floor."""
    r, d, S, u, p, log2_s = polynomials
    if THRESHOLD is None:
        G = smooth_svm.top_gradient(V, r, d, S, p, log2_s, rate, K)
    else:
        G = smooth_svm.top_gradient_taylor(V, u, p, rate, K, THRESHOLD)
    G = tl.where(few[:, None], svm_g[:, None], svm_g[:, None] * G)
    if LQ:
        largest, each = soft
        G += each[:, None] * lq.softmax_weight(V, largest[:, None])
    return G


@triton.jit
def by_value(
    v,
    polynomials,
    soft,
    svm_g,
    few,
    rate,
    LQ: tl.constexpr,
    K: tl.constexpr,
    THRESHOLD: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The scores of Top, NaN for those of v that are not above the floor, and the gradient of each; [ROWS]."""
    values = ()
    out = ()
    for i in tl.static_range(len(v) - 1):
        values = values + (tl.where(v[i] > v[len(v) - 1], v[i], float("nan")),)
        out = out + (tl.zeros_like(v[0]),)
    # a few at a time, each in another lane
    for first in range(0, len(v) - 1, WIDTH):
        slot = first + tl.arange(0, WIDTH)[None, :]
        V = tl.full([v[0].shape[0], WIDTH], float("-inf"), v[0].dtype)
        for i in tl.static_range(len(v) - 1):
            V = tl.where(slot == i, v[i][:, None], V)
        G = gradient_of(V, polynomials, soft, svm_g, few, rate, LQ, K, THRESHOLD)
        found = ()
        for i in tl.static_range(len(v) - 1):
            found = found + (out[i] + tl.sum(tl.where(slot == i, G, 0.0), axis=1),)
        out = found
    return values, out


@triton.jit
def gradients(
    candidates,
    columns,
    floor,
    polynomials,
    soft,
    svm_g,
    few,
    rate,
    LQ: tl.constexpr,
    K: tl.constexpr,
    THRESHOLD: tl.constexpr,
    NONE: tl.constexpr,
):
    """The gradient of each candidate that is above the floor, and its column; NONE of all others."""
    out = candidates
    where = ()
    count = tl.zeros(candidates[0].shape, tl.int32)
    for i in tl.static_range(len(candidates)):
        is_top = candidates[i] > floor[:, None]
        # a column below 0 is still to come: its complement
        where = where + (tl.where(is_top, ~columns[i], NONE),)
        count += is_top.to(tl.int32)
    # one of each lane at a time; seldom more than once
    for _ in range(tl.max(tl.max(count, axis=1), axis=0)):
        V = tl.full(candidates[0].shape, float("-inf"), candidates[0].dtype)
        for i in tl.static_range(len(out)):
            V = tl.maximum(V, tl.where(where[i] < 0, out[i], float("-inf")))
        G = gradient_of(V, polynomials, soft, svm_g, few, rate, LQ, K, THRESHOLD)
        found = ()
        left = ()
        for i in tl.static_range(len(out)):
            here = (where[i] < 0) & (out[i] == V)
            found = found + (tl.where(here, G, out[i]),)
            left = left + (tl.where(here, ~where[i], where[i]),)
        out = found
        where = left
    return out, where
