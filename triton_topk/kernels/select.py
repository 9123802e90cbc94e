"""The largest scores of a row, exact with ties, without sorting the row.

A position is one column of every block.  While a row passes, each position keeps its largest score alone.  The
scores above the COUNT-th largest are fewer than COUNT, so the COUNT - 1 positions with the largest
maxima have them all.  Those positions, and that of the label, are then read again: their columns, the
candidates, are few.
"""

import triton
import triton.language as tl

from triton_topk.kernels import lists


@triton.jit
def take_positions(
    firsts,
    label_at,
    start,
    ROUNDS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    FEW: tl.constexpr,
    NONE: tl.constexpr,
):
    """Take the label's position and the ROUNDS positions with the largest maxima, in this order.

    firsts: for each vector slot, the maximum [ROWS, GROUP] of its positions.  It is returned with NaN
    at the positions taken, which no maximum sees, and with it the positions, each HEIGHT times in a row, as tuples of
    [ROWS, WIDTH] and as tuples of [ROWS, FEW]; NONE where there is none left.
    """
    wide = _repeated(label_at, (ROUNDS + 1) * HEIGHT, WIDTH)
    narrow = _repeated(label_at, (ROUNDS + 1) * HEIGHT, FEW)
    firsts = _remove(firsts, label_at, start)
    # not unrolled: the compiler takes a time that grows with the square of the code
    for i in range(1, ROUNDS + 1):
        largest = tl.max(_maximum(firsts), axis=1)
        found = tl.full(firsts[0].shape, NONE, tl.int32)
        for s in tl.static_range(len(firsts)):
            found = tl.where(firsts[s] == largest[:, None], start[None, :] + s, found)
        at = tl.min(found, axis=1)
        firsts = _remove(firsts, at, start)
        wide = _put(wide, i, at, HEIGHT, WIDTH)
        narrow = _put(narrow, i, at, HEIGHT, FEW)
    return firsts, wide, narrow


@triton.jit
def _repeated(at, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    out = ()
    for _ in tl.static_range(0, SIZE, WIDTH):
        out = out + (at[:, None] + tl.zeros([1, WIDTH], tl.int32),)
    return out


@triton.jit
def _put(positions, i, at, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """Let `at` be the i-th position."""
    out = ()
    for c in tl.static_range(len(positions)):
        which = (c * WIDTH + tl.arange(0, WIDTH)[None, :]) // HEIGHT
        out = out + (tl.where(which == i, at[:, None], positions[c]),)
    return out


@triton.jit
def _remove(firsts, at, start):
    out = ()
    for s in tl.static_range(len(firsts)):
        here = start[None, :] + s == at[:, None]
        out = out + (tl.where(here, float("nan"), firsts[s]),)
    return out


@triton.jit
def where(condition, a, b):
    """tl.where of tuples."""
    out = ()
    for i in tl.static_range(len(a)):
        out = out + (tl.where(condition, a[i], b[i]),)
    return out


@triton.jit
def _maximum(values):
    out = values[0]
    for i in tl.static_range(1, len(values)):
        out = tl.maximum(out, values[i])
    return out


@triton.jit
def largest_values(candidates, firsts, COUNT: tl.constexpr, SORTED: tl.constexpr):
    """The COUNT largest scores of each row, descending, from the candidates and the maxima elsewhere."""
    of_lanes = ()
    for i in tl.static_range(len(candidates)):
        of_lanes = lists.insert(of_lanes, candidates[i], COUNT)
    for _ in tl.static_range(len(of_lanes), SORTED):
        of_lanes = of_lanes + (tl.full(candidates[0].shape, float("-inf"), candidates[0].dtype),)
    merged = lists.merge_lanes(of_lanes, SORTED)
    elsewhere = tl.max(_maximum(firsts), axis=1)
    out = ()
    for i in tl.static_range(COUNT - 1):
        out = out + (merged[i],)
    return out + (tl.maximum(merged[COUNT - 1], elsewhere),)
