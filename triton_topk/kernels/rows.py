"""A program has rows, or reads a part of a row.  Row quantities have the shape [ROWS]."""

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Row(NamedTuple):
    """A Row holds what is known before the scores are read."""

    number: Any  # of the batch's rows
    label: Any  # -1 where it is no class
    active: Any  # whether the row counts
    valid: Any  # whether its label is a class
    score: Any  # the label's
    margin: Any  # k times the margin, in float64


class Part(NamedTuple):
    """A Part is what a program reads of a row, or the row."""

    scores: Any  # pointers [ROWS, 1] to its first score
    first: Any  # its first column in the row
    width: Any  # how many columns it has
    label: Any  # the column of the label in it, -1 where it has none
    has_label: Any


@triton.jit
def load_label(labels, n, ignore_index):
    """Return the label, whether the row counts, and whether its label is a class."""
    label = tl.load(labels).to(tl.int64)
    active = label != ignore_index
    valid = active & (label >= 0) & (label < n)
    return label, active, valid


@triton.jit
def load_normalizer(normalizer, labels, n_counted, ignore_index):
    """Return the number that divides the losses: the normalizer or, of n_counted labels, how many are not ignored."""
    STEP: tl.constexpr = 256
    at = tl.arange(0, STEP)
    count = 0
    for first in range(0, n_counted, STEP):
        inside = at < n_counted - first
        label = tl.load(labels + first + at, mask=inside, other=0).to(tl.int64)
        count += tl.sum((inside & (label != ignore_index)).to(tl.int32))
    given = tl.load(normalizer, mask=n_counted == 0, other=0.0)
    return tl.where(n_counted > 0, count.to(given.dtype), given)


@triton.jit
def load_score(scores, label, active, valid, LAYOUT: tl.constexpr):
    """Return the label's score."""
    s_y = tl.load(scores + label, mask=valid, other=float("nan")).to(LAYOUT.acc)
    # +inf is NaN, as in cross-entropy; an ignored row is a row of masked classes
    s_y = tl.where(s_y == float("inf"), float("nan"), s_y)
    return tl.where(active, s_y, 0.0)


@triton.jit
def part_of_row(scores, part, n, label, valid, LAYOUT: tl.constexpr):
    """Locate the part of a number.  Parts have whole blocks, and differ by one block at most."""
    if LAYOUT.parts == 1:
        # a class of another shard has no column
        inside = valid & (label < n) if LAYOUT.merged else valid
        return Part(scores[:, None], 0, n, label, inside)
    else:
        blocks = tl.cdiv(n, LAYOUT.block)
        first = part * blocks // LAYOUT.parts * LAYOUT.block
        width = tl.minimum((part + 1) * blocks // LAYOUT.parts * LAYOUT.block, n) - first
        inside = valid & (label >= first) & (label < first + width)
        return Part(
            (scores + first)[:, None], first, width, tl.where(inside, label - first, -1), inside
        )
