"""Descending lists, one a lane, merged into the largest values of a row.

A list is a tuple of tensors, so that a comparison is a maximum and a minimum of registers.
"""

import triton
import triton.language as tl


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
    """The numbers of each lane, at most 8, descending, and where they were: the i-th digit, of 4 bits, of a number."""
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
    """A step of merging pairs of lists of a SIZE: some numbers a DISTANCE apart put in order."""
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
    """The largest len(a) of two descending lists of that length, descending."""
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


# fmt: off
@triton.jit
def _merge_2(a1, a2, b1, b2):
    return merge((a1, a2), (b1, b2))


@triton.jit
def _merge_3(a1, a2, a3, b1, b2, b3):
    return merge((a1, a2, a3), (b1, b2, b3))


@triton.jit
def _merge_4(a1, a2, a3, a4, b1, b2, b3, b4):
    return merge((a1, a2, a3, a4), (b1, b2, b3, b4))


@triton.jit
def _merge_5(a1, a2, a3, a4, a5, b1, b2, b3, b4, b5):
    return merge((a1, a2, a3, a4, a5), (b1, b2, b3, b4, b5))


@triton.jit
def _merge_6(a1, a2, a3, a4, a5, a6, b1, b2, b3, b4, b5, b6):
    return merge((a1, a2, a3, a4, a5, a6), (b1, b2, b3, b4, b5, b6))


@triton.jit
def _merge_8(a1, a2, a3, a4, a5, a6, a7, a8, b1, b2, b3, b4, b5, b6, b7, b8):
    return merge((a1, a2, a3, a4, a5, a6, a7, a8), (b1, b2, b3, b4, b5, b6, b7, b8))


@triton.jit
def _merge_10(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10):
    return merge((a1, a2, a3, a4, a5, a6, a7, a8, a9, a10), (b1, b2, b3, b4, b5, b6, b7, b8, b9, b10))


@triton.jit
def _merge_12(
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12,
    b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12,
):
    return merge(
        (a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12),
        (b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12),
    )


@triton.jit
def _merge_14(
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14,
    b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14,
):
    return merge(
        (a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14),
        (b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14),
    )


@triton.jit
def _merge_16(
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16,
    b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, b16,
):
    return merge(
        (a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16),
        (b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, b16),
    )


@triton.jit
def _merge_20(
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20,
    b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, b16, b17, b18, b19, b20,
):
    return merge(
        (a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20),
        (b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, b16, b17, b18, b19, b20),
    )
# fmt: on


@triton.jit
def merge_lanes(lists, SORTED: tl.constexpr):
    """Merge the lists of the lanes of axis 1."""
    if SORTED == 1:
        return (tl.max(lists[0], axis=1),)
    elif SORTED == 2:
        return tl.reduce(lists, 1, _merge_2)
    elif SORTED == 3:
        return tl.reduce(lists, 1, _merge_3)
    elif SORTED == 4:
        return tl.reduce(lists, 1, _merge_4)
    elif SORTED == 5:
        return tl.reduce(lists, 1, _merge_5)
    elif SORTED == 6:
        return tl.reduce(lists, 1, _merge_6)
    elif SORTED == 8:
        return tl.reduce(lists, 1, _merge_8)
    elif SORTED == 10:
        return tl.reduce(lists, 1, _merge_10)
    elif SORTED == 12:
        return tl.reduce(lists, 1, _merge_12)
    elif SORTED == 14:
        return tl.reduce(lists, 1, _merge_14)
    elif SORTED == 16:
        return tl.reduce(lists, 1, _merge_16)
    else:
        return tl.reduce(lists, 1, _merge_20)
