"""The rows of a block are spread over lanes.

Lane r * slots + s holds, in its step j, score j * slots + s of row r.  A block has LANES / slots rows: ROWS short ones
or a long one.
"""

import numpy as np

from triton_topk.native.compile import inline, jit
from triton_topk.native.vectors import convert, load, picks, store

LANES = 32
ROWS = 8  # of a block at most: the size of a vector of what rows have
SHORT, LONG = LANES // ROWS, LANES  # slots of a row

_by_slot = picks(*[r * SHORT + s for s in range(SHORT) for r in range(ROWS)])
_of_short_rows = picks(*[lane // SHORT for lane in range(LANES)])
_of_a_long_row = picks(*[0] * LANES)


@inline
def by_slot(lanes, slots):
    """Return the lanes in another order, slot by slot, in each the rows."""
    return _by_slot(lanes) if slots == SHORT else lanes


@inline
def of_rows(rows, slots, like):
    """Return for each lane what its row has, in the dtype of a pointer."""
    numbers = convert(rows, like)
    return _of_short_rows(numbers) if slots == SHORT else _of_a_long_row(numbers)


@inline
def place(i, r, slots):
    """Return the index of score i of row r."""
    return i // slots * LANES + r * slots + i % slots


@inline
def steps_of(n, slots):
    """Return the number of steps, four of which are taken at once."""
    return (n + 4 * slots - 1) // (4 * slots) * 4


@jit
def read_row(scores, at, stride, n, x, r, slots, steps):
    """Copy n scores, from scores[at] on, to row r of the block x, and pad it by -inf."""
    whole = n // slots if stride == 1 else 0
    if slots == SHORT:
        for j in range(whole):
            store(x, j * LANES + r * SHORT, convert(load(scores, at + j * SHORT, SHORT), x))
    else:
        for j in range(whole):
            store(x, j * LANES, convert(load(scores, at + j * LONG, LONG), x))
    for i in range(whole * slots, n):
        store(x, place(i, r, slots), convert(load(scores, at + i * stride, 1), x))
    mask_row(n, x, r, slots, steps)


@jit
def mask_row(n, x, r, slots, steps):
    """Make the scores of row r from the n-th on -inf."""
    for i in range(n, steps * slots):
        x[place(i, r, slots)] = -np.inf


@jit
def write_row(out, at, n, x, r, slots):
    """Copy row r of the block x to out[at], ..."""
    whole = n // slots
    if slots == SHORT:
        for j in range(whole):
            store(out, at + j * SHORT, convert(load(x, j * LANES + r * SHORT, SHORT), out))
    else:
        for j in range(whole):
            store(out, at + j * LONG, convert(load(x, j * LANES, LONG), out))
    for i in range(whole * slots, n):
        store(out, at + i, convert(load(x, place(i, r, slots), 1), out))
