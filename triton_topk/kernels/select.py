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
_TAG = tl.constexpr(2**13 - 1)  # the largest that the last digits of a key hold


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
    HEIGHT: tl.constexpr = LAYOUT.height
    # of a row's lanes, those that merge the candidates' largest values: 8 candidates each, or a position
    NARROW: tl.constexpr = min(
        LAYOUT.lanes, max(HEIGHT, triton.next_power_of_2(LOSS.taken * HEIGHT) // 8)
    )
    start = tl.arange(0, LAYOUT.lanes)[None, :] * LAYOUT.vec
    label = tl.where(part.has_label, blocks.position_of(part.label, LAYOUT), NO_COLUMN)[:, None]
    maxima = ()
    for s in tl.static_range(len(firsts)):
        of_label = start + blocks.slot_column(s, LAYOUT) == label
        # a score of +inf makes the row NaN, whatever is taken
        maxima = maxima + (tl.where(of_label, float("inf"), firsts[s]),)
    if LAYOUT.coarse:
        slots, wide, narrow = _take_at_once(maxima, start, NARROW, LOSS, LAYOUT)
    else:
        slots, wide, narrow = _take_in_turn(maxima, start, NARROW, LOSS, LAYOUT)
    left = tl.full(maxima[0].shape, float("-inf"), LAYOUT.acc)
    for s in tl.static_range(len(maxima)):
        left = tl.maximum(left, tl.where(slots[s], float("-inf"), maxima[s]))
    return Taken(slots, left, wide, narrow)


@triton.jit
def _integer(x):
    """Return integers in the order of the numbers x, none of them NaN, with -0 before 0.

    A GPU has an instruction for the largest of a warp's integers of 32 bits.
    """
    BITS: tl.constexpr = x.dtype.primitive_bitwidth
    bits = x.to(tl.int64 if BITS == 64 else tl.int32, bitcast=True)
    # of a negative number, all but the sign are turned around
    return bits ^ ((bits >> (BITS - 1)) & (2 ** (BITS - 1) - 1))


@triton.jit
def _take_at_once(maxima, start, NARROW: tl.constexpr, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Take the positions of 16-bit scores: their keys, of which no two are equal, are merged as scores are.

    A key is a maximum, and in the last digits, which 16 bits leave free, says its position.
    """
    tl.static_assert(LAYOUT.block <= _TAG + 1)
    GONE: tl.constexpr = -(2**31)
    keys = ()
    for s in tl.static_range(len(maxima)):
        position = start + blocks.slot_column(s, LAYOUT)
        keys = keys + ((_integer(maxima[s]) & ~_TAG) | (_TAG - position),)
    of_lane, _ = lists.sort(keys)
    of_lane = tuples.padded(of_lane[: LOSS.taken], GONE, LOSS.sorted_positions)
    largest = lists.merge_lanes(of_lane, LOSS.sorted_positions)
    found = ()
    for i in tl.static_range(LOSS.taken):
        at = tl.where(largest[i] > GONE, _TAG - (largest[i] & _TAG), NO_COLUMN)
        found = found + (at,)
    slots = ()
    for s in tl.static_range(len(keys)):
        slots = slots + (keys[s] >= largest[LOSS.taken - 1][:, None],)
    wide = _repeated(found, LAYOUT.height, LAYOUT.lanes)
    return slots, wide, _repeated(found, LAYOUT.height, NARROW)


@triton.jit
def _take_in_turn(maxima, start, NARROW: tl.constexpr, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Take positions one by one."""
    COUNT: tl.constexpr = LOSS.taken
    HEIGHT: tl.constexpr = LAYOUT.height
    LANES: tl.constexpr = LAYOUT.lanes
    # two tensors of positions have room for a step
    STEP: tl.constexpr = min(COUNT, max(1, 2 * LANES // HEIGHT))
    REST: tl.constexpr = COUNT % STEP
    keys = ()
    for s in tl.static_range(len(maxima)):
        keys = keys + (_integer(maxima[s]),)
    keys, order = lists.sort(keys)
    taken = tl.zeros(keys[0].shape, tl.int32)
    none = (tl.full([LAYOUT.rows], NO_COLUMN, tl.int32),) * STEP
    wide = ()
    narrow = ()
    for _ in tl.static_range(0, COUNT, STEP):
        wide = wide + _repeated(none, HEIGHT, LANES)
        narrow = narrow + _repeated(none, HEIGHT, NARROW)
    # not unrolled: the compiler takes a time that grows with the square of the code
    for _ in range(0, COUNT - REST, STEP):
        keys, order, taken, found = _take(keys, order, taken, start, STEP, LAYOUT)
        wide = _append(wide, _repeated(found, HEIGHT, LANES))
        narrow = _append(narrow, _repeated(found, HEIGHT, NARROW))
    if REST > 0:
        keys, order, taken, found = _take(keys, order, taken, start, REST, LAYOUT)
        found = found + none[REST:]
        wide = _append(wide, _repeated(found, HEIGHT, LANES))
        narrow = _append(narrow, _repeated(found, HEIGHT, NARROW))
    slots = ()
    for s in tl.static_range(len(maxima)):
        slots = slots + ((taken >> s) % 2 == 1,)
    return slots, wide, narrow


@triton.jit
def _take(keys, order, taken, start, COUNT: tl.constexpr, LAYOUT: tl.constexpr):
    """Take the COUNT positions with the largest keys.

    keys: of a lane's positions, descending; order: their slots, as digits; taken: the slots taken, as bits;
    start: the lane's first column.
    """
    GONE: tl.constexpr = -(2 ** (keys[0].dtype.primitive_bitwidth - 1))
    found = ()
    for _ in tl.static_range(COUNT):
        # where none is left, no lane has the largest
        largest = tl.maximum(tl.max(keys[0], axis=1), GONE + 1)
        slot = order % 16
        position = start + blocks.slot_column(slot, LAYOUT)
        at = tl.min(tl.where(keys[0] == largest[:, None], position, NO_COLUMN), axis=1)
        found = found + (at,)
        is_found = position == at[:, None]
        taken = tl.where(is_found, taken | (1 << slot), taken)
        order = tl.where(is_found, order // 16, order)
        shifted = ()
        for s in tl.static_range(len(keys) - 1):
            shifted = shifted + (tl.where(is_found, keys[s + 1], keys[s]),)
        keys = shifted + (tl.where(is_found, GONE, keys[len(keys) - 1]),)
    return keys, order, taken, found


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
