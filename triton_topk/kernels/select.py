"""The largest scores of a row, exact with ties, without sorting the row.

A row is read in blocks of LANES columns.  Each lane keeps the DEPTH largest of the values that
pass it, in order; the largest of the row is then the largest of the lanes' firsts, and taking it
promotes that lane's second.  DEPTH = min(TOP, blocks) loses nothing: a lane sees one value a block.
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
def take_top(lists, TOP: tl.constexpr, SLOTS: tl.constexpr):
    """The TOP largest values of each row, descending, and [ROWS, SLOTS] the lane each came from."""
    lane = tl.arange(0, lists[0].shape[1])[None, :]
    slot = tl.arange(0, SLOTS)[None, :]
    values = ()
    origin = tl.zeros([lists[0].shape[0], SLOTS], tl.int32)
    for i in tl.static_range(TOP):
        value, at = tl.max(
            lists[0], axis=1, return_indices=True, return_indices_tie_break_left=True
        )
        values = values + (value,)
        # slots past the last repeat it
        origin = tl.where(slot >= i, at[:, None], origin)
        taken = lane == at[:, None]
        promoted = ()
        for j in tl.static_range(1, len(lists)):
            promoted = promoted + (tl.where(taken, lists[j], lists[j - 1]),)
        lists = promoted + (tl.where(taken, float("-inf"), lists[len(lists) - 1]),)
    return values, origin
