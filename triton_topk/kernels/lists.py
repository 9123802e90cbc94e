"""Each lane has a descending list, and all lists are merged into the largest values of a row.

A list is a tuple of tensors, so that a comparison is a maximum and a minimum of registers.
"""

import triton
import triton.language as tl

from triton_topk.kernels import tuples
from triton_topk.kernels.tuples import lane_reduction

# Stands for a masked class where a difference of two -inf would be NaN.
LOWEST = tl.constexpr(-1.0e38)


@triton.jit
def insert(lists, x, DEPTH: tl.constexpr):
    """Insert x into each lane's descending list, DEPTH long at most.  NaN is never inserted."""
    out = ()
    for j in tl.static_range(len(lists)):
        out = out + (tl.maximum(lists[j], x),)
        x = tl.minimum(lists[j], x)
    if len(lists) < DEPTH:
        out = out + (tl.maximum(x, float("-inf")),)
    return out


@triton.jit
def sort(x):
    """Sort the numbers of each lane, at most 8, descending.

    Return them and where they were: the place of the i-th is the i-th digit, of 4 bits, of a number.
    """
    places = ()
    for i in tl.static_range(len(x)):
        places = places + (tl.full(x[0].shape, i, tl.int32),)
    # Batcher's odd-even merge sort
    x, places = _in_order(x, places, 1, 1)
    x, places = _in_order(x, places, 2, 2)
    x, places = _in_order(x, places, 2, 1)
    x, places = _in_order(x, places, 4, 4)
    x, places = _in_order(x, places, 4, 2)
    x, places = _in_order(x, places, 4, 1)
    digits = places[0]
    for i in tl.static_range(1, len(x)):
        digits += places[i] << (4 * i)
    return x, digits


@triton.jit
def _in_order(x, places, SIZE: tl.constexpr, DISTANCE: tl.constexpr):
    """Put some numbers a DISTANCE apart in order, as a step of merging pairs of lists of a SIZE."""
    PAIR: tl.constexpr = 2 * SIZE
    # the first in order are every second group of a DISTANCE, from the first or the second of the pair on
    ODD: tl.constexpr = 1 if DISTANCE < SIZE else 0
    out = ()
    at = ()
    for i in tl.static_range(len(x)):
        if i // DISTANCE % 2 == ODD and i % PAIR + DISTANCE < PAIR and i + DISTANCE < len(x):
            other = x[i + DISTANCE]
            swap = other > x[i]
            out = out + (tl.where(swap, other, x[i]),)
            at = at + (tl.where(swap, places[i + DISTANCE], places[i]),)
        elif i // DISTANCE % 2 != ODD and i % PAIR >= (1 + ODD) * DISTANCE:
            other = x[i - DISTANCE]
            swap = x[i] > other
            out = out + (tl.where(swap, other, x[i]),)
            at = at + (tl.where(swap, places[i - DISTANCE], places[i]),)
        else:
            out = out + (x[i],)
            at = at + (places[i],)
    return out, at


@triton.jit
def merge(a, b):
    """Merge two descending lists of a length into the largest numbers, a list of that length."""
    SIZE: tl.constexpr = len(a)
    out = ()
    for i in tl.static_range(SIZE):
        out = out + (tl.maximum(a[i], b[SIZE - 1 - i]),)
    # descending, then ascending: a bitonic merge sorts it, as if it began with infinities up to 32
    out = _half_clean(out, 16)
    out = _half_clean(out, 8)
    out = _half_clean(out, 4)
    out = _half_clean(out, 2)
    return _half_clean(out, 1)


@triton.jit
def _half_clean(x, DISTANCE: tl.constexpr):
    SIZE: tl.constexpr = len(x)
    out = ()
    for i in tl.static_range(SIZE):
        if ((i + 32 - SIZE) // DISTANCE) % 2 == 1 and i >= DISTANCE:
            out = out + (tl.minimum(x[i], x[i - DISTANCE]),)
        elif ((i + 32 - SIZE) // DISTANCE) % 2 == 0 and i + DISTANCE < SIZE:
            out = out + (tl.maximum(x[i], x[i + DISTANCE]),)
        else:
            out = out + (x[i],)
    return out


_over_lanes = lane_reduction(merge)


@triton.jit
def merge_lanes(lists, SORTED: tl.constexpr):
    """Merge the lists of the lanes of axis 1, padded to SORTED."""
    if SORTED == 1:
        return (tl.max(lists[0], axis=1),)
    else:
        return _over_lanes(tuples.padded(lists, float("-inf"), SORTED), SORTED)
