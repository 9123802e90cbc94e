"""The largest scores of a row are found, exactly with ties, without sorting the row.

While a row passes, each position (see blocks.py) keeps its largest score alone.  The positions with the TOP largest
maxima have the TOP largest scores.  Those positions, and that of the label, are then read again: their scores, the
candidates, are few.  A slot is a position's place among those of its lane.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from triton_topk.kernels import blocks, lists, tuples

NO_COLUMN = tl.constexpr(2**30)  # stands for a position where none is left


class Taken(NamedTuple):
    """The positions that are taken are the label's and those with the largest maxima."""

    slots: Any  # for each slot of a lane, whether it is taken, [ROWS, LANES]
    left: Any  # the largest maximum of each lane's other slots, [ROWS, LANES]
    columns: Any  # the positions, each HEIGHT times in a row, as tensors [ROWS, LANES]
    narrow: Any  # the same as tensors of fewer lanes, [ROWS, NARROW]


class Candidates(NamedTuple):
    """Candidates are the scores of the positions taken, tuples of [ROWS, LANES]; the label's and none are -inf."""

    scores: Any
    columns: Any


class Largest(NamedTuple):
    """A Largest holds what the losses need to know of the largest scores of the others, [ROWS]."""

    v: Any  # tuple of TOP, descending
    first: Any  # v_1, or a finite number where all others are masked
    p: Any  # v_k, the pivot; 0 where fewer than k others are left; NaN where the largest is +inf
    few: Any  # whether fewer than k others are left
    floor: Any  # the last of v, or a number that all scores that are left are above


@triton.jit
def maxima(part, LAYOUT: tl.constexpr):
    """Return the maximum of each column of a row's blocks; and the blocks, unless they are read again later."""
    kept = ()
    largest = blocks.constant(float("-inf"), LAYOUT)
    LAST: tl.constexpr = LAYOUT.blocks - 1
    if LAYOUT.stream:
        for b in range(LAST):
            x = blocks.load(part.scores, b * LAYOUT.block, part.width, False, LAYOUT)
            largest = tuples.maximum(largest, x)
        x = blocks.load(part.scores, LAST * LAYOUT.block, part.width, True, LAYOUT)
        largest = tuples.maximum(largest, x)
    else:
        for b in tl.static_range(LAYOUT.blocks):
            x = blocks.load(part.scores, b * LAYOUT.block, part.width, b == LAST, LAYOUT)
            largest = tuples.maximum(largest, x)
            kept = kept + x
    return largest, kept


@triton.jit
def take_positions(firsts, part, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Take the label's position, and then those with the largest maxima.

    firsts: for each slot of a lane, the maximum [ROWS, LANES] of its position.
    """
    COUNT: tl.constexpr = LOSS.taken
    HEIGHT: tl.constexpr = LAYOUT.height
    LANES: tl.constexpr = LAYOUT.lanes
    # of a row's lanes, those that merge the candidates' largest values: 8 candidates each, or a position
    NARROW: tl.constexpr = min(LANES, max(HEIGHT, triton.next_power_of_2(COUNT * HEIGHT) // 8))
    # two tensors of positions have room for a step
    STEP: tl.constexpr = min(COUNT, max(1, 2 * LANES // HEIGHT))
    REST: tl.constexpr = COUNT % STEP
    start = tl.arange(0, LANES)[None, :] * LAYOUT.vec
    label = tl.where(part.has_label, blocks.position_of(part.label, LAYOUT), NO_COLUMN)[:, None]
    maxima = ()
    for s in tl.static_range(len(firsts)):
        of_label = start + blocks.slot_column(s, LAYOUT) == label
        # a score of +inf makes the row NaN, whatever is taken
        maxima = maxima + (tl.where(of_label, float("inf"), firsts[s]),)
    maxima, order = lists.sort(maxima)
    taken = tl.zeros(maxima[0].shape, tl.int32)
    none = (tl.full([LAYOUT.rows], NO_COLUMN, tl.int32),) * STEP
    wide = ()
    narrow = ()
    for _ in tl.static_range(0, COUNT, STEP):
        wide = wide + _repeated(none, HEIGHT, LANES)
        narrow = narrow + _repeated(none, HEIGHT, NARROW)
    # not unrolled: the compiler takes a time that grows with the square of the code
    for _ in range(0, COUNT - REST, STEP):
        maxima, order, taken, found = _take(maxima, order, taken, start, STEP, LAYOUT)
        wide = _append(wide, _repeated(found, HEIGHT, LANES))
        narrow = _append(narrow, _repeated(found, HEIGHT, NARROW))
    if REST > 0:
        maxima, order, taken, found = _take(maxima, order, taken, start, REST, LAYOUT)
        found = found + none[REST:]
        wide = _append(wide, _repeated(found, HEIGHT, LANES))
        narrow = _append(narrow, _repeated(found, HEIGHT, NARROW))
    slots = ()
    for s in tl.static_range(len(firsts)):
        slots = slots + ((taken >> s) % 2 == 1,)
    return Taken(slots, maxima[0], wide, narrow)


@triton.jit
def _take(maxima, order, taken, start, COUNT: tl.constexpr, LAYOUT: tl.constexpr):
    """Take the COUNT positions with the largest maxima.

    maxima: of a lane's positions, descending; order: their slots, as digits; taken: the slots taken, as bits;
    start: the lane's first column.
    """
    found = ()
    for _ in tl.static_range(COUNT):
        largest = tl.max(maxima[0], axis=1)
        slot = order % 16
        position = start + blocks.slot_column(slot, LAYOUT)
        at = tl.min(tl.where(maxima[0] == largest[:, None], position, NO_COLUMN), axis=1)
        found = found + (at,)
        is_found = position == at[:, None]
        taken = tl.where(is_found, taken | (1 << slot), taken)
        order = tl.where(is_found, order // 16, order)
        shifted = ()
        for s in tl.static_range(len(maxima) - 1):
            shifted = shifted + (tl.where(is_found, maxima[s + 1], maxima[s]),)
        # NaN stands for a maximum that is gone, and tl.max leaves it out
        maxima = shifted + (tl.where(is_found, float("nan"), maxima[len(maxima) - 1]),)
    return maxima, order, taken, found


@triton.jit
def _repeated(found, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """Repeat each of the positions found HEIGHT times in a row, as tensors [ROWS, WIDTH]."""
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
    """Append new tensors to a queue, which stays as long as it was."""
    return queue[len(new) :] + new


@triton.jit
def load_candidates(part, positions, active, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Load the scores of the positions, which are repeated as often as they have scores."""
    WIDTH: tl.constexpr = positions[0].shape[1]
    NUMBER: tl.constexpr = LOSS.taken * LAYOUT.height
    scores = ()
    columns = ()
    for i in tl.static_range(len(positions)):
        number = i * WIDTH + tl.arange(0, WIDTH)[None, :]
        column = blocks.position_column(positions[i], number % LAYOUT.height, LAYOUT)
        inside = active[:, None] & (column < part.width) & (column != part.label[:, None])
        if (i + 1) * WIDTH > NUMBER:
            inside = inside & (number < NUMBER)
        x = tl.load(part.scores + column, mask=inside, other=float("-inf"))
        scores = scores + (x.to(LAYOUT.acc),)
        columns = columns + (column,)
    return Candidates(scores, columns)


@triton.jit
def largest_scores(scores, LOSS: tl.constexpr):
    """Return the TOP largest of the scores [ROWS, WIDTH] of each row, descending."""
    of_lanes = ()
    for i in tl.static_range(len(scores)):
        of_lanes = lists.insert(of_lanes, scores[i], LOSS.top)
    return tuples.first(lists.merge_lanes(of_lanes, LOSS.sorted), LOSS.top)


@triton.jit
def largest(v, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Describe the TOP largest scores v."""
    first = tl.maximum(v[0], lists.LOWEST)
    few = v[LOSS.k - 1] == float("-inf")
    p = tl.where(few, 0.0, v[LOSS.k - 1]) + 0.0 * first
    return Largest(v, first, p, few, floor(v, LOSS, LAYOUT))


@triton.jit
def floor(v, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Return the last of v, or where classes are masked a number that all scores that are left are above."""
    LOWEST: tl.constexpr = -1.7e308 if LAYOUT.acc == tl.float64 else -3.4e38
    last = v[LOSS.top - 1]
    return tl.where(last > float("-inf"), last, LOWEST)


@triton.jit
def with_pivot(largest, p):
    """Replace the pivot."""
    return Largest(largest.v, largest.first, p, largest.few, largest.floor)
