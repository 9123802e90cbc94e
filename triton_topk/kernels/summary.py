"""What is kept of a part of a row, in O(k) numbers, and how the parts of a row become one.

v          the TOP largest scores of the others, descending
r          s^j r_j of those that are not above the last of v, relative to the K-th (see smooth_svm.py)
log2_s     of that s, a power of two
total      the sum of exp(s_i - v_1)
ties       how many are equal to the K-th; NaN if a score is
positions  that have all that are above the last of v (see select.py), and the label's
"""

import triton
import triton.language as tl

from triton_topk.kernels import blocks, lists, lq, smooth_svm
from triton_topk.kernels.polynomial import include, product_over_lanes


@triton.jit
def store(there, v, r, log2_s, total, ties):
    """Of [ROWS] numbers, one after the other."""
    numbers = v + r + (log2_s, total, ties)
    for i in tl.static_range(len(numbers)):
        tl.store(there + i, numbers[i])


@triton.jit
def store_positions(there, positions, HEIGHT: tl.constexpr, COUNT: tl.constexpr):
    """positions: tuple of [ROWS, WIDTH], each position HEIGHT times in a row."""
    WIDTH: tl.constexpr = positions[0].shape[1]
    for i in tl.static_range(len(positions)):
        index = i * WIDTH + tl.arange(0, WIDTH)[None, :]
        wanted = (index % HEIGHT == 0) & (index < COUNT * HEIGHT)
        tl.store(there[:, None] + index // HEIGHT, positions[i], mask=wanted)


@triton.jit
def load_positions(here, HEIGHT: tl.constexpr, COUNT: tl.constexpr, WIDTH: tl.constexpr):
    """As store_positions got them."""
    out = ()
    for i in tl.static_range(0, COUNT * HEIGHT, WIDTH):
        which = (i + tl.arange(0, WIDTH)[None, :]) // HEIGHT
        at = tl.load(here[:, None] + which, mask=which < COUNT, other=0)
        out = out + (at.to(tl.int32),)
    return out


@triton.jit
def load_merged(
    here,
    rate,
    SMOOTH: tl.constexpr,
    HARD: tl.constexpr,
    LQ: tl.constexpr,
    K: tl.constexpr,
    TOP: tl.constexpr,
    DEGREE: tl.constexpr,
    SORTED: tl.constexpr,
    REDUCIBLE: tl.constexpr,
    SCALED: tl.constexpr,
    PARTS: tl.constexpr,
    STRIDE: tl.constexpr,
):
    """The summary of a row, [ROWS], from those of its parts, a STRIDE apart."""
    # all in one load: the compiler takes a time that grows with the number of loads
    WIDTH: tl.constexpr = triton.next_power_of_2(TOP + DEGREE + 3)
    index = tl.arange(0, triton.next_power_of_2(PARTS) * WIDTH)[None, :]
    part, number = index // WIDTH, index % WIDTH
    inside = (part < PARTS) & (number < TOP + DEGREE + 3)
    other = tl.where(number < TOP, float("-inf"), 0.0)
    numbers = tl.load(here[:, None] + part * STRIDE + number, mask=inside, other=other)
    numbers = blocks.split(numbers, WIDTH)
    v = numbers[:TOP]
    others = numbers[TOP:]
    padded = v
    for _ in tl.static_range(TOP, SORTED):
        padded = padded + (tl.full(v[0].shape, float("-inf"), v[0].dtype),)
    top = lists.merge_lanes(padded, SORTED)
    r = ()
    log2_s = tl.zeros_like(top[0])
    total = log2_s
    ties = log2_s
    pivot = tl.maximum(top[K - 1], lq.LOWEST)[:, None]
    if SMOOTH:
        # in terms of the row's pivot an e of a part is 2^shift of what it was
        shift = (tl.maximum(v[K - 1], lq.LOWEST) - pivot) * rate - others[DEGREE]
        for j in tl.static_range(DEGREE):
            r = r + (others[j],)
        # of a part's largest those that are not above the last of the row's
        e = ()
        first = r[0] * tl.exp2(shift)
        for i in tl.static_range(TOP - 1):
            is_rest = (v[i] > v[TOP - 1]) & (v[i] <= top[TOP - 1][:, None])
            e = e + (tl.where(is_rest, smooth_svm.weigh(v[i], pivot, rate), 0.0),)
            first += e[i]
        if SCALED:
            log2_s = smooth_svm.log2_scale(first, K)
        r = smooth_svm.rescale(r, tl.exp2(shift + log2_s[:, None]))
        for i in tl.static_range(TOP - 1):
            r = include(r, e[i] * tl.exp2(log2_s)[:, None])
        r = product_over_lanes(r, REDUCIBLE)
    if HARD:
        count = tl.where(v[K - 1] == pivot, others[DEGREE + 2], 0.0 * others[DEGREE + 2])
        for i in tl.static_range(K - 1):
            count += ((v[i] > v[K - 1]) & (v[i] == pivot)).to(count.dtype)
        ties = tl.sum(count, axis=1)
    if LQ:
        largest = tl.maximum(v[0], lq.LOWEST)
        weight = lq.softmax_weight(largest, tl.maximum(top[0], lq.LOWEST)[:, None])
        total = tl.sum(others[DEGREE + 1] * weight, axis=1)
    out = ()
    for i in tl.static_range(TOP):
        out = out + (top[i],)
    return out, r, log2_s, total, ties
