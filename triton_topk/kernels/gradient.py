"""The gradient of a row, or of its part, is written for all scores, and then for Top and the label over them.

Pointers [ROWS, 1] are to the gradient of the part's first score.
"""

import triton
import triton.language as tl

from triton_topk.kernels import blocks, formulas


@triton.jit
def store_kept(pointers, kept, row, part, rate, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Store the gradient of blocks in registers: of scores, or of their weights if they are weighed once."""
    WEIGHED: tl.constexpr = LAYOUT.accumulates and not LOSS.mixed
    column = tl.arange(0, LAYOUT.columns)[None, :]
    FULL: tl.constexpr = (LAYOUT.blocks - 1) * LAYOUT.vectors
    for b in tl.static_range(len(kept)):
        out = formulas.gradient(kept[b], row, rate, WEIGHED, LOSS)
        out = out.to(pointers.dtype.element_ty)
        at = b * LAYOUT.columns
        if b < FULL:
            tl.store(pointers + column + at, out)
        else:
            tl.store(pointers + column + at, out, mask=column < part.width - at)


@triton.jit
def store_stream(pointers, row, part, rate, LOSS: tl.constexpr, LAYOUT: tl.constexpr):
    """Read the scores again and store their gradient."""
    # several loads before the first store, which they could not pass
    TENSORS: tl.constexpr = min(4, triton.next_power_of_2(LAYOUT.blocks * LAYOUT.vectors))
    STEP: tl.constexpr = TENSORS * LAYOUT.columns
    column = tl.arange(0, STEP)[None, :]
    if not LAYOUT.accumulates:
        # else Triton 3.6 moves all scores to the layout of the summaries
        row = formulas.add_to_row(row, blocks.zeros(part.scores, 1, STEP, LAYOUT))
    for offset in range(0, LAYOUT.blocks * LAYOUT.block, STEP):
        mask = column < part.width - offset
        x = tl.load(part.scores + offset + column, mask=mask).to(LAYOUT.acc)
        out = formulas.gradient(x, row, rate, False, LOSS).to(pointers.dtype.element_ty)
        tl.store(pointers + offset + column, out, mask=mask)


@triton.jit
def store_top(pointers, gradients, columns, width):
    """Store the gradients of Top; all other candidates have columns beyond the width."""
    for i in tl.static_range(len(gradients)):
        out = gradients[i].to(pointers.dtype.element_ty)
        tl.store(pointers + columns[i], out, mask=columns[i] < width)


@triton.jit
def clear_ignored(pointers, row, part, LAYOUT: tl.constexpr):
    """Store 0 for rows that do not count."""
    column = tl.arange(0, LAYOUT.columns)[None, :]
    zeros = tl.zeros([LAYOUT.rows, LAYOUT.columns], pointers.dtype.element_ty)
    if tl.min(row.active.to(tl.int32), axis=0) == 0:
        tl.debug_barrier()
        for offset in tl.range(0, part.width, LAYOUT.columns, loop_unroll_factor=1):
            inside = (column < part.width - offset) & (row.active == 0)[:, None]
            tl.store(pointers + column + offset, zeros, mask=inside)
