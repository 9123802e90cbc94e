"""What is kept of a part of a row, in O(k) numbers, and how the parts of a row become one.

v          the TOP largest scores of the others, descending
r          s^j r_j of all but these, relative to the K-th (see smooth_svm.py)
log2_s     of that s, a power of two
total      the sum of exp(s_i - v_1)
ties       how many are equal to the K-th; NaN if a score is
tied       whether one that is not of v is equal to the last of v
positions  that have v (see select.py), and the label's
"""

import triton
import triton.language as tl

from triton_topk.kernels import blocks, lists, lq, smooth_svm
from triton_topk.kernels.polynomial import include, product_over_lanes


@triton.jit
def store(there, v, r, log2_s, total, ties, tied):
    """Of [ROWS] numbers, one after the other."""
    numbers = v + r + (log2_s, total, ties, tied.to(log2_s.dtype))
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
    NUMBERS: tl.constexpr = TOP + DEGREE + 4
    WIDTH: tl.constexpr = triton.next_power_of_2(NUMBERS)
    index = tl.arange(0, triton.next_power_of_2(PARTS) * WIDTH)[None, :]
    part, number = index // WIDTH, index % WIDTH
    inside = (part < PARTS) & (number < NUMBERS)
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
    tied = log2_s > 0
    p = tl.maximum(top[K - 1], lq.LOWEST)
    pivot = p[:, None]
    if SMOOTH:
        # in terms of the row's pivot an e of a part is 2^shift of what it was
        shift = (tl.maximum(v[K - 1], lq.LOWEST) - pivot) * rate - others[DEGREE]
        for j in tl.static_range(DEGREE):
            r = r + (others[j],)
        # of a part's largest those that are not of the row's
        floor = smooth_svm.floor_of(top)
        count = tl.zeros(shift.shape, tl.int32)
        e = ()
        first = r[0] * tl.exp2(shift)
        if K > 1:
            for i in tl.static_range(TOP):
                large = v[i] >= floor[:, None]
                count += large.to(tl.int32)
                e = e + (tl.where(large, 0.0, smooth_svm.weigh(v[i], pivot, rate)),)
                first += e[i]
        more = (others[DEGREE + 3] > 0) & (v[TOP - 1] == floor[:, None])
        equal, tied = smooth_svm.beyond_top(count, more, TOP, K)
        e_floor = smooth_svm.weigh(floor, p, rate)
        if SCALED:
            log2_s = smooth_svm.log2_scale(tl.sum(first, axis=1) + equal * e_floor, K)
        r = smooth_svm.rescale(r, tl.exp2(shift + log2_s[:, None]))
        for i in tl.static_range(len(e)):
            r = include(r, e[i] * tl.exp2(log2_s)[:, None])
        r = product_over_lanes(r, REDUCIBLE)
        if K > 1:
            r = smooth_svm.include_equal(r, equal, e_floor * tl.exp2(log2_s))
    if HARD:
        count = tl.where(v[K - 1] == pivot, others[DEGREE + 2], 0.0 * others[DEGREE + 2])
        for i in tl.static_range(K - 1):
            count += ((v[i] > v[K - 1]) & (v[i] == pivot)).to(count.dtype)
        ties = tl.sum(count, axis=1)
    if LQ:
        largest = tl.maximum(v[0], lq.LOWEST)
        weight = lq.softmax_weight(largest, tl.maximum(top[0], lq.LOWEST)[:, None])
        # rounded before lanes add up what they hold, so that all get the same sum
        total = tl.sum(tl.fma(others[DEGREE + 1], weight, 0.0), axis=1)
    out = ()
    for i in tl.static_range(TOP):
        out = out + (top[i],)
    return out, r, log2_s, total, ties, tied
