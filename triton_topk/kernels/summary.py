"""A part of a row is summarised in O(k) numbers, and the summaries of its parts become that of the row.

v          the TOP largest scores of the others, descending
r          s^j r_j of all but these, relative to the K-th (see smooth_svm.py)
log2_s     of that s, a power of two
total      the sum over the others that a loss needs (see formulas.py)
tied       whether one that is not of v is equal to the last of v
positions  that have v (see select.py), and the label's
"""

import triton
import triton.language as tl

from triton_topk.kernels import blocks, formulas, lists, select, smooth_svm, tuples
from triton_topk.kernels.accumulate import Rest


def size(top: int, degree: int) -> int:
    """Count the numbers of a summary: v, r, log2_s, total, tied.  Its positions come after them."""
    return top + degree + 3


@triton.jit
def store(summary, v, rest):
    """Store the numbers [ROWS], one after the other."""
    numbers = v + rest.r + (rest.log2_s, rest.total, rest.tied.to(rest.log2_s.dtype))
    for i in tl.static_range(len(numbers)):
        tl.store(summary + i, numbers[i])


@triton.jit
def store_positions(summary, positions, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Store the positions, a tuple of [ROWS, LANES] with each position HEIGHT times in a row."""
    HEIGHT: tl.constexpr = LAYOUT.height
    start = (summary + LAYOUT.numbers)[:, None]
    for i in tl.static_range(len(positions)):
        number = i * LAYOUT.lanes + tl.arange(0, LAYOUT.lanes)[None, :]
        once = (number % HEIGHT == 0) & (number < LOSS.taken * HEIGHT)
        tl.store(start + number // HEIGHT, positions[i], mask=once)


@triton.jit
def load_positions(summary, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Load the positions, as store_positions got them."""
    out = ()
    start = (summary + LAYOUT.numbers)[:, None]
    for i in tl.static_range(0, LOSS.taken * LAYOUT.height, LAYOUT.lanes):
        number = (i + tl.arange(0, LAYOUT.lanes)[None, :]) // LAYOUT.height
        at = tl.load(start + number, mask=number < LOSS.taken, other=0)
        out = out + (at.to(tl.int32),)
    return out


@triton.jit
def load_merged(summaries, rate, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Merge the summaries of a row's parts: its largest scores and its Rest.  summaries: pointers [ROWS]."""
    # all in one load: the compiler takes a time that grows with the number of loads
    TOP: tl.constexpr = LOSS.top
    WIDTH: tl.constexpr = triton.next_power_of_2(LAYOUT.numbers)
    index = tl.arange(0, triton.next_power_of_2(LAYOUT.parts) * WIDTH)[None, :]
    part, number = index // WIDTH, index % WIDTH
    inside = (part < LAYOUT.parts) & (number < LAYOUT.numbers)
    other = tl.where(number < TOP, float("-inf"), 0.0)
    pointers = summaries[:, None] + part * LAYOUT.summary + number
    numbers = blocks.split(tl.load(pointers, mask=inside, other=other), WIDTH)
    v = numbers[:TOP]
    r = numbers[TOP : TOP + LOSS.degree]
    log2_s, total, tied = numbers[TOP + LOSS.degree : LAYOUT.numbers]
    merged = lists.merge_lanes(tuples.padded(v, float("-inf"), LOSS.sorted), LOSS.sorted)
    top = tuples.first(merged, TOP)
    zero = tl.zeros_like(top[0])
    total = formulas.merge(v, total, top, LOSS) if LOSS.summed else zero
    if LOSS.smooth:
        floor = select.floor(top, LOSS, LAYOUT)
        r, log2_s, tied = smooth_svm.merge(v, r, log2_s, tied, top[LOSS.k - 1], floor, rate, LOSS)
    else:
        log2_s = zero
        tied = zero > 0
    return top, Rest(r, log2_s, total, tied)
