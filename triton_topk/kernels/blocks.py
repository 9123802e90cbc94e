"""A row is read in blocks of columns, and its columns belong to positions.

A block is a tuple of one or two tensors [ROWS, COLUMNS] of adjacent columns, of which a lane has a vector each: VEC
adjacent columns, at most as many as 128 bits hold.  A position holds a column of every block: two columns where VEC is
8, since a position's candidates are read one by one however small they are.  Two tensors a block make twice the
positions, of half the candidates.
"""

import triton
import triton.language as tl


@triton.jit
def load(scores, offset, width, MASKED: tl.constexpr, LAYOUT: tl.constexpr):
    """Load the block that begins at column offset, -inf from column width on.  scores: pointers [ROWS, 1]."""
    column = tl.arange(0, LAYOUT.columns)
    pointers = scores + column[None, :]
    out = ()
    for i in tl.static_range(LAYOUT.vectors):
        at = offset + i * LAYOUT.columns
        if MASKED:
            x = tl.load(pointers + at, mask=(column < width - at)[None, :], other=float("-inf"))
        else:
            x = tl.load(pointers + at)
        out = out + (x.to(LAYOUT.acc),)
    return out


@triton.jit
def constant(value, LAYOUT: tl.constexpr):
    """Make a block of one value."""
    return (tl.full([LAYOUT.rows, LAYOUT.columns], value, LAYOUT.acc),) * LAYOUT.vectors


@triton.jit
def split(x, PARTS: tl.constexpr):
    """Split [ROWS, LANES * PARTS] into the PARTS adjacent columns [ROWS, LANES] of each lane, in order."""
    parts = (x,)
    for _ in tl.static_range(6):
        if len(parts) < PARTS:
            even = ()
            odd = ()
            for i in tl.static_range(len(parts)):
                part = parts[i]
                a, b = tl.split(tl.reshape(part, (part.shape[0], part.shape[1] // 2, 2)))
                even = even + (a,)
                odd = odd + (b,)
            parts = even + odd
    return parts


@triton.jit
def join(parts):
    """Undo split."""
    for _ in tl.static_range(5):
        if len(parts) > 1:
            out = ()
            for i in tl.static_range(len(parts) // 2):
                a = parts[i]
                pair = tl.join(a, parts[i + len(parts) // 2])
                out = out + (tl.reshape(pair, (a.shape[0], a.shape[1] * 2)),)
            parts = out
    return parts[0]


@triton.jit
def slot_column(slot, LAYOUT: tl.constexpr):
    """Return the first column of a slot's position, counted from the lane's first column."""
    return slot // LAYOUT.slots * LAYOUT.columns + slot % LAYOUT.slots


@triton.jit
def position_of(column, LAYOUT: tl.constexpr):
    """Return the first column of the position that a column belongs to."""
    return column % LAYOUT.block // LAYOUT.vec * LAYOUT.vec + column % LAYOUT.slots


@triton.jit
def position_column(position, number, LAYOUT: tl.constexpr):
    """Return the column of the score of a number in a position."""
    fold = number % LAYOUT.fold * LAYOUT.slots
    return position + number // LAYOUT.fold * LAYOUT.block + fold


@triton.jit
def maximum_of_slots(block, LAYOUT: tl.constexpr):
    """Return the maximum of the columns of each slot, as a tuple over the slots of each of the block's tensors."""
    out = ()
    for v in tl.static_range(len(block)):
        parts = split(block[v], LAYOUT.vec)
        for s in tl.static_range(LAYOUT.slots):
            largest = parts[s]
            for i in tl.static_range(s + LAYOUT.slots, LAYOUT.vec, LAYOUT.slots):
                largest = tl.maximum(largest, parts[i])
            out = out + (largest,)
    return out


@triton.jit
def sum_where_left(block, taken, LAYOUT: tl.constexpr):
    """Sum each lane's columns of the positions that are not taken."""
    total = tl.zeros([LAYOUT.rows, LAYOUT.lanes], LAYOUT.acc)
    for v in tl.static_range(len(block)):
        parts = split(block[v], LAYOUT.vec)
        for i in tl.static_range(LAYOUT.vec):
            total += tl.where(taken[v * LAYOUT.slots + i % LAYOUT.slots], 0.0, parts[i])
    return total


@triton.jit
def infinite_where_taken(p, taken, LAYOUT: tl.constexpr):
    """Return the pivot p for each column of a block, +inf at the positions taken: no score has weight beside it."""
    out = ()
    for v in tl.static_range(LAYOUT.vectors):
        columns = ()
        for i in tl.static_range(LAYOUT.vec):
            is_taken = taken[v * LAYOUT.slots + i % LAYOUT.slots]
            columns = columns + (tl.where(is_taken, float("inf"), p[:, None]),)
        out = out + (join(columns),)
    return out


@triton.jit
def zeros(scores, NUMBER: tl.constexpr, COLUMNS: tl.constexpr, LAYOUT: tl.constexpr):
    """Return 0 for each row, in the layout of COLUMNS scores, from a load that loads nothing.

    In Triton 3.6 and 3.7 the last loads before an operation choose its layout.  Those are the candidates', to which
    every score would be moved, and back.  NUMBER keeps the compiler from merging two of these.
    """
    column = tl.arange(0, COLUMNS)[None, :]
    zeros = tl.load(scores + column, mask=column < -NUMBER, other=0.0)
    return tl.sum(zeros.to(LAYOUT.acc), axis=1)
