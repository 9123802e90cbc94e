"""The largest scores of a row, exact with ties, without sorting the row.

A position is one column of every block.  While a row passes, each position keeps its largest score alone.  The
COUNT positions with the largest maxima have the COUNT largest scores.  Those positions, and that of the label,
are then read again: their columns, the candidates, are few.
"""

import triton
import triton.language as tl

from triton_topk.kernels import lists


@triton.jit
def take_positions(
    firsts,
    label_at,
    start,
    LANES: tl.constexpr,
    SLOTS: tl.constexpr,
    COUNT: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    FEW: tl.constexpr,
    NONE: tl.constexpr,
):
    """Take COUNT positions: the label's and those with the largest maxima, in this order.

    firsts: for each slot of a lane, the maximum [ROWS, GROUP] of its position; start [GROUP]: the column of slot 0.
    Returns the slots taken, as bits, the largest maximum of each lane's other slots, and the positions taken, each
    HEIGHT times in a row, as tuples of [ROWS, WIDTH] and as tuples of [ROWS, FEW].  NONE stands for a position where
    none is left.
    """
    # at a time as many as two tensors have room for
    STEP: tl.constexpr = min(COUNT, max(1, 2 * WIDTH // HEIGHT))
    REST: tl.constexpr = COUNT % STEP
    maxima = ()
    for s in tl.static_range(len(firsts)):
        of_label = start[None, :] + (s // SLOTS * LANES + s % SLOTS) == label_at[:, None]
        # +inf elsewhere makes the row NaN, whatever is taken
        maxima = maxima + (tl.where(of_label, float("inf"), firsts[s]),)
    maxima, order = lists.sort(maxima)
    taken = tl.zeros(maxima[0].shape, tl.int32)
    nothing = (tl.full([maxima[0].shape[0]], NONE, tl.int32),) * STEP
    wide = ()
    narrow = ()
    for _ in tl.static_range(0, COUNT, STEP):
        wide = wide + _repeated(nothing, HEIGHT, WIDTH)
        narrow = narrow + _repeated(nothing, HEIGHT, FEW)
    # not unrolled: the compiler takes a time that grows with the square of the code
    for _ in range(0, COUNT - REST, STEP):
        maxima, order, taken, found = _take(maxima, order, taken, STEP, start, LANES, SLOTS, NONE)
        wide = _append(wide, _repeated(found, HEIGHT, WIDTH))
        narrow = _append(narrow, _repeated(found, HEIGHT, FEW))
    if REST > 0:
        maxima, order, taken, found = _take(maxima, order, taken, REST, start, LANES, SLOTS, NONE)
        found = found + nothing[REST:]
        wide = _append(wide, _repeated(found, HEIGHT, WIDTH))
        narrow = _append(narrow, _repeated(found, HEIGHT, FEW))
    return taken, maxima[0], wide, narrow


@triton.jit
def _take(
    maxima,
    order,
    taken,
    COUNT: tl.constexpr,
    start,
    LANES: tl.constexpr,
    SLOTS: tl.constexpr,
    NONE: tl.constexpr,
):
    """Take the COUNT positions with the largest maxima.

    maxima: of a lane's positions, descending; order: their slots, as digits.
    """
    found = ()
    for _ in tl.static_range(COUNT):
        largest = tl.max(maxima[0], axis=1)
        slot = order % 16
        here = start[None, :] + (slot // SLOTS * LANES + slot % SLOTS)
        at = tl.min(tl.where(maxima[0] == largest[:, None], here, NONE), axis=1)
        found = found + (at,)
        is_here = here == at[:, None]
        taken = tl.where(is_here, taken | (1 << slot), taken)
        order = tl.where(is_here, order // 16, order)
        shifted = ()
        for s in tl.static_range(len(maxima) - 1):
            shifted = shifted + (tl.where(is_here, maxima[s + 1], maxima[s]),)
        maxima = shifted + (tl.where(is_here, float("nan"), maxima[len(maxima) - 1]),)
    return maxima, order, taken, found


@triton.jit
def _repeated(found, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """Each of the positions found HEIGHT times in a row, as tensors [ROWS, WIDTH]."""
    out = ()
    for i in tl.static_range(0, len(found) * HEIGHT, WIDTH):
        positions = found[i // HEIGHT][:, None] + tl.zeros([1, WIDTH], tl.int32)
        for j in tl.static_range(i // HEIGHT + 1, min(len(found), (i + WIDTH) // HEIGHT)):
            beyond = tl.arange(0, WIDTH)[None, :] >= j * HEIGHT - i
            positions = tl.where(beyond, found[j][:, None], positions)
        out = out + (positions,)
    return out


@triton.jit
def _append(queue, new):
    """The queue, as long as before, with what is new at its end."""
    return queue[len(new) :] + new


@triton.jit
def where(condition, a, b):
    """tl.where of tuples."""
    out = ()
    for i in tl.static_range(len(a)):
        out = out + (tl.where(condition, a[i], b[i]),)
    return out


@triton.jit
def largest_values(candidates, COUNT: tl.constexpr, SORTED: tl.constexpr):
    """The COUNT largest of the candidates of each row, descending."""
    of_lanes = ()
    for i in tl.static_range(len(candidates)):
        of_lanes = lists.insert(of_lanes, candidates[i], COUNT)
    for _ in tl.static_range(len(of_lanes), SORTED):
        of_lanes = of_lanes + (tl.full(candidates[0].shape, float("-inf"), candidates[0].dtype),)
    merged = lists.merge_lanes(of_lanes, SORTED)
    out = ()
    for i in tl.static_range(COUNT):
        out = out + (merged[i],)
    return out
