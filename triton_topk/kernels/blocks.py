"""A row as blocks of columns, and the positions that its columns belong to.

A block is a tuple of one or two tensors [ROWS, LANES] of adjacent columns, of which a lane has a vector each: VEC
adjacent columns, as many as 128 bits hold.  What a position holds is a column of every block: of 16-bit scores two
columns, since a position's candidates are read one by one however small they are.  Two tensors a block make twice the
positions, of half the candidates.
"""

import triton
import triton.language as tl


@triton.jit
def load(here, offset, column, n, ACC: tl.constexpr, MASKED: tl.constexpr, VECTORS: tl.constexpr):
    """The scores of a block as a tuple of VECTORS tensors, -inf outside the row.  column: of the first."""
    out = ()
    for i in tl.static_range(VECTORS):
        at = offset + i * column.shape[0]
        inside = (column < n - at)[None, :]
        x = tl.load(here + at, mask=inside, other=float("-inf")) if MASKED else tl.load(here + at)
        out = out + (x.to(ACC),)
    return out


@triton.jit
def maximum(a, b):
    """tl.maximum of tuples."""
    out = ()
    for i in tl.static_range(len(a)):
        out = out + (tl.maximum(a[i], b[i]),)
    return out


@triton.jit
def add(totals, INDEX: tl.constexpr, x):
    """The tuple with x added to one of its tensors."""
    return totals[:INDEX] + (totals[INDEX] + x,) + totals[INDEX + 1 :]


@triton.jit
def split(x, PARTS: tl.constexpr):
    """[ROWS, GROUP * PARTS] as the PARTS adjacent columns [ROWS, GROUP] of each lane, in order."""
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
    """The inverse of split."""
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
def maximum_of_slots(block, VEC: tl.constexpr, SLOTS: tl.constexpr):
    """The maximum of the columns of each slot, as a tuple over the SLOTS of each of the block's tensors."""
    out = ()
    for v in tl.static_range(len(block)):
        parts = split(block[v], VEC)
        for s in tl.static_range(SLOTS):
            largest = parts[s]
            for i in tl.static_range(s + SLOTS, VEC, SLOTS):
                largest = tl.maximum(largest, parts[i])
            out = out + (largest,)
    return out


@triton.jit
def sum_where_left(block, taken, VEC: tl.constexpr):
    """The sum over each lane's columns of the positions that are not taken."""
    SLOTS: tl.constexpr = len(taken) // len(block)
    total = tl.zeros([block[0].shape[0], block[0].shape[1] // VEC], block[0].dtype)
    for v in tl.static_range(len(block)):
        parts = split(block[v], VEC)
        for i in tl.static_range(VEC):
            total += tl.where(taken[v * SLOTS + i % SLOTS], 0.0, parts[i])
    return total


@triton.jit
def infinite_where_taken(p, taken, VEC: tl.constexpr, VECTORS: tl.constexpr):
    """The pivot p of each column of a block, +inf at the positions taken: nothing has weight beside it."""
    SLOTS: tl.constexpr = len(taken) // VECTORS
    out = ()
    for v in tl.static_range(VECTORS):
        columns = ()
        for i in tl.static_range(VEC):
            columns = columns + (tl.where(taken[v * SLOTS + i % SLOTS], float("inf"), p[:, None]),)
        out = out + (join(columns),)
    return out


@triton.jit
def zeros(here, column, NUMBER: tl.constexpr, ACC: tl.constexpr):
    """0 for each row, in the layout of the scores: from a load that loads nothing.

    In Triton 3.6 and 3.7 the last loads before an operation choose its layout.  Those are the candidates', to which
    every score would be moved, and back.  NUMBER keeps the compiler from merging two of these.
    """
    nothing = tl.load(here, mask=(column < -NUMBER)[None, :], other=0.0)
    return tl.sum(nothing.to(ACC), axis=1)
