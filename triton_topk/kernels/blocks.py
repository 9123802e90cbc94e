"""A row as blocks of columns, and the positions that its columns belong to.

A lane has VEC adjacent columns of each block, as many as 128 bits hold.  What a position holds is a column of every
block: of 16-bit scores two columns, since a position's candidates are read one by one however small they are.
"""

import triton
import triton.language as tl


@triton.jit
def load(here, offset, column, n, ACC: tl.constexpr, MASKED: tl.constexpr):
    """The scores of a block, -inf outside the row."""
    if MASKED:
        inside = (column < n - offset)[None, :]
        x = tl.load(here + offset, mask=inside, other=float("-inf"))
    else:
        x = tl.load(here + offset)
    return x.to(ACC)


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
def maximum_of_slots(x, VEC: tl.constexpr, SLOTS: tl.constexpr):
    """The maximum of the columns of each slot, as a tuple over the slots."""
    parts = split(x, VEC)
    out = ()
    for s in tl.static_range(SLOTS):
        largest = parts[s]
        for i in tl.static_range(s + SLOTS, VEC, SLOTS):
            largest = tl.maximum(largest, parts[i])
        out = out + (largest,)
    return out


@triton.jit
def sum_where_left(x, taken, VEC: tl.constexpr):
    """The sum over each lane's columns of the positions that are not taken."""
    parts = split(x, VEC)
    total = tl.zeros_like(parts[0])
    for i in tl.static_range(VEC):
        total += tl.where(taken[i % len(taken)], 0.0, parts[i])
    return total


@triton.jit
def infinite_where_taken(p, taken, VEC: tl.constexpr):
    """The pivot p of each column, +inf at the positions taken: nothing has weight beside it."""
    out = ()
    for i in tl.static_range(VEC):
        out = out + (tl.where(taken[i % len(taken)], float("inf"), p[:, None]),)
    return join(out)


@triton.jit
def zeros(here, column, NUMBER: tl.constexpr, ACC: tl.constexpr):
    """0 for each row, in the layout of the scores: from a load that loads nothing.

    In Triton 3.6 and 3.7 the last loads before an operation choose its layout.  Those are the candidates', to which
    every score would be moved, and back.  NUMBER keeps the compiler from merging two of these.
    """
    nothing = tl.load(here, mask=(column < -NUMBER)[None, :], other=0.0)
    return tl.sum(nothing.to(ACC), axis=1)
