"""Beside its largest scores the losses need a row's polynomial of the rest, or a sum over all of its scores.

A lane includes its columns but for the positions taken.  The scores of those, the candidates, are included after them.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from triton_topk.kernels import blocks, formulas, smooth_svm, tuples
from triton_topk.kernels.polynomial import include


class Rest(NamedTuple):
    """A Rest holds the polynomial of the scores that are not of Top, and the sum over all others, [ROWS]."""

    r: Any  # s^j sigma_j of the scores that are not of Top, from j = 1 on
    log2_s: Any
    total: Any  # the sum
    tied: Any  # whether one of the rest is equal to the floor


@triton.jit
def of_kept(kept, taken, largest, rate, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Include blocks in registers in a polynomial [ROWS, LANES] and a sum, which is a block.

    Return these, and what the gradient needs of each score: itself, or its one weight.
    """
    r = (tl.zeros([LAYOUT.rows, LAYOUT.lanes], LAYOUT.acc),) * LOSS.degree
    sums = blocks.constant(0.0, LAYOUT)
    weights = ()
    vectors = ()
    for b in tl.static_range(len(kept)):
        e = kept[b]
        if LOSS.summed:
            e = formulas.weigh_for_sum(kept[b], largest, LOSS)
            sums = tuples.add_to_one(sums, b % LAYOUT.vectors, e)
        if LOSS.smooth:
            e = smooth_svm.weigh(kept[b], largest.p[:, None], rate)
            vectors = vectors + (blocks.split(e, LAYOUT.vec),)
        weights = weights + (kept[b] if LOSS.mixed else e,)
    if LOSS.smooth:
        # slot by slot: if a slot is taken, the polynomial before it is restored
        for s in tl.static_range(len(taken.slots)):
            before = r
            for i in tl.static_range(s % LAYOUT.slots, LAYOUT.vec, LAYOUT.slots):
                for b in tl.static_range(s // LAYOUT.slots, len(vectors), LAYOUT.vectors):
                    r = include(r, vectors[b][i])
            r = tuples.where(taken.slots[s], before, r)
    return r, sums, weights


@triton.jit
def of_stream(part, taken, largest, rate, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Read the scores again and include them in a polynomial [ROWS, LANES] and a sum, which is a block."""
    r = (tl.zeros([LAYOUT.rows, LAYOUT.lanes], LAYOUT.acc),) * LOSS.degree
    sums = blocks.constant(0.0, LAYOUT)
    pivots = ()
    if LOSS.smooth:
        pivots = blocks.infinite_where_taken(largest.p, taken.slots, LAYOUT)
    last = LAYOUT.blocks - 1
    if LOSS.hard:
        # no constant: else Triton 3.6 unrolls this short loop, whose loads then take all registers
        last = (part.width - 1) // LAYOUT.block
    for b in range(last):
        x = blocks.load(part.scores, b * LAYOUT.block, part.width, False, LAYOUT)
        r, sums = _include_block(r, sums, x, pivots, largest, rate, LOSS, LAYOUT)
    x = blocks.load(part.scores, last * LAYOUT.block, part.width, True, LAYOUT)
    return _include_block(r, sums, x, pivots, largest, rate, LOSS, LAYOUT)


@triton.jit
def _include_block(r, sums, block, pivots, largest, rate, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Include the scores of a block in the polynomial and the sum.  pivots: +inf at the positions taken."""
    for v in tl.static_range(len(block)):
        if LOSS.smooth:
            e = blocks.split(smooth_svm.weigh(block[v], pivots[v], rate), LAYOUT.vec)
            for i in tl.static_range(LAYOUT.vec):
                r = include(r, e[i])
        if LOSS.summed:
            sums = tuples.add_to_one(sums, v, formulas.weigh_for_sum(block[v], largest, LOSS))
    return r, sums


@triton.jit
def over_lanes(r, sums, taken, candidates, largest, rate, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Combine the polynomials and the sums of a row's lanes with the candidates into the Rest of the row."""
    log2_s = tl.zeros([LAYOUT.rows], LAYOUT.acc)
    total = log2_s
    tied = log2_s > 0
    if LOSS.summed:
        total = blocks.sum_where_left(sums, taken.slots, LAYOUT)
    count = tl.zeros([LAYOUT.rows, LAYOUT.lanes], tl.int32)
    for i in tl.static_range(len(candidates.scores)):
        x = candidates.scores[i]
        if LOSS.smooth:
            e = smooth_svm.weigh(x, largest.p[:, None], rate)
            r, count = smooth_svm.include_below(r, count, e, x, largest.floor, LOSS)
        if LOSS.summed:
            total += formulas.weigh_for_sum(x, largest, LOSS)
    if LOSS.summed:
        total = tl.sum(total, axis=1)
    if LOSS.smooth:
        equal, tied = smooth_svm.beyond_top(count, taken.left == largest.floor[:, None], LOSS)
        e = smooth_svm.weigh(largest.floor, largest.p, rate)
        r, log2_s = smooth_svm.rest_polynomial(r, equal, e, LOSS)
    return Rest(r, log2_s, total, tied)
