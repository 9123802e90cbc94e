"""The gradient of Top, which is among the candidates, and where it goes."""

import triton
import triton.language as tl

from triton_topk.kernels import lq, smooth_svm


@triton.jit
def gradients(
    candidates,
    columns,
    floor,
    smooth,
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
    r, d, S, u, p, log2_s = smooth
    left = ()
    out = ()
    where = ()
    count = tl.zeros(candidates[0].shape, tl.int32)
    for i in tl.static_range(len(candidates)):
        is_top = candidates[i] > floor[:, None]
        left = left + (tl.where(is_top, candidates[i], float("-inf")),)
        out = out + (tl.zeros_like(candidates[i]),)
        where = where + (tl.where(is_top, columns[i], NONE),)
        count += is_top.to(tl.int32)
    # one of each lane at a time; seldom more than once
    for _ in range(tl.max(tl.max(count, axis=1), axis=0)):
        V = left[0]
        for i in tl.static_range(1, len(left)):
            V = tl.maximum(left[i], V)
        if THRESHOLD is None:
            G = smooth_svm.top_gradient(V, r, d, S, p, log2_s, rate, K)
        else:
            G = smooth_svm.top_gradient_taylor(V, u, p, rate, K, THRESHOLD)
        G = tl.where(few[:, None], svm_g[:, None], svm_g[:, None] * G)
        if LQ:
            largest, each = soft
            G += each[:, None] * lq.softmax_weight(V, largest[:, None])
        found = ()
        rest = ()
        for i in tl.static_range(len(left)):
            # a lane that has no more keeps what it has
            here = (left[i] == V) & (V > float("-inf"))
            found = found + (tl.where(here, G, out[i]),)
            rest = rest + (tl.where(here, float("-inf"), left[i]),)
        out = found
        left = rest
    return out, where
