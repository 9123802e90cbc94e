"""The gradient of Top, which is among the candidates, and where it goes."""

import triton
import triton.language as tl

from triton_topk.kernels import lq, smooth_svm


@triton.jit
def gradients(
    candidates,
    columns,
    floor,
    tied,
    smooth,
    soft,
    svm_g,
    few,
    rate,
    LQ: tl.constexpr,
    K: tl.constexpr,
    SCALED: tl.constexpr,
    THRESHOLD: tl.constexpr,
    NONE: tl.constexpr,
):
    """The gradient of each candidate that is of Top, and its column; NONE of all others.

    Where the floor is tied with scores that are not of Top, those equal to it are left to the polynomial of all others.
    """
    r, a, b, S, u, p, log2_s = smooth
    out = candidates
    where = ()
    count = tl.zeros(candidates[0].shape, tl.int32)
    not_top = tl.where(tied, floor, float("nan"))[:, None]
    for i in tl.static_range(len(candidates)):
        is_top = (candidates[i] >= floor[:, None]) & (candidates[i] != not_top)
        # a column below 0 is still to come: its complement
        where = where + (tl.where(is_top, ~columns[i], NONE),)
        count += is_top.to(tl.int32)
    # one of each lane at a time; seldom more than once
    for _ in range(tl.max(tl.max(count, axis=1), axis=0)):
        V = tl.full(candidates[0].shape, float("-inf"), candidates[0].dtype)
        for i in tl.static_range(len(out)):
            V = tl.maximum(V, tl.where(where[i] < 0, out[i], float("-inf")))
        if THRESHOLD is None:
            G = smooth_svm.top_gradient(V, r, a, b, S, p, log2_s, rate, K, SCALED)
        else:
            G = smooth_svm.top_gradient_taylor(V, u, p, rate, K, THRESHOLD)
        G = tl.where(few[:, None], svm_g[:, None], svm_g[:, None] * G)
        if LQ:
            largest, each = soft
            G += each[:, None] * lq.softmax_weight(V, largest[:, None])
        found = ()
        left = ()
        for i in tl.static_range(len(out)):
            here = (where[i] < 0) & (out[i] == V)
            found = found + (tl.where(here, G, out[i]),)
            left = left + (tl.where(here, ~where[i], where[i]),)
        out = found
        where = left
    return out, where
