"""The kernel computes the losses of a range of rows, block by block."""

from typing import NamedTuple

import numpy as np

from triton_topk.native.block import compute_block
from triton_topk.native.compile import entry, jit
from triton_topk.native.lanes import LANES
from triton_topk.native.memory import lay_out
from triton_topk.native.mode import flush_denormals, restore
from triton_topk.native.vectors import pointer_to


class Pointers(NamedTuple):
    """The tensors of a call are pointers, with their strides; n is the number of scores of a row."""

    scores: int
    row_stride: int
    stride: int
    n: int
    classes: (
        int  # that a label may have: of a shard one more, which stands for those of other shards
    )
    labels: int
    label_stride: int
    ignore_index: int
    weight: int  # of each class
    weight_stride: int
    sample_weight: int  # of each row
    sample_weight_stride: int
    normalizer: float
    margins: int  # of each row for each label that it could have
    margin_row_stride: int
    margin_stride: int
    upstream: int
    upstream_stride: int
    losses: int
    wants_losses: bool
    hits: int
    wants_hits: bool
    k_of_hits: int
    gradient: int
    wants_gradient: bool
    summary: int  # of the scores, to be stored, or of all classes
    number_stride: int
    wants_summary: bool
    has_summary: bool
    top: int  # of a summary
    degree: int


@entry
def compute(
    storage, real, result, memory, terms, slots, first, last,
    scores, row_stride, stride, n, classes, labels, label_stride, ignore_index,
    weight, weight_stride, sample_weight, sample_weight_stride, normalizer,
    margins, margin_row_stride, margin_stride, upstream, upstream_stride,
    losses, hits, k_of_hits, gradient, summary, number_stride, wants_summary, top, degree,
):  # fmt: skip
    """Compute what is asked for, where the address is not 0, of the rows from first to last.

    storage, real, result: numbers of the types of the scores, of the arithmetic, of the losses.
    memory: an array of `size_of` bytes.  terms: see terms.py.  slots: see lanes.py.
    Return whether the labels are classes or ignored; rows of others are left out.
    """
    has_summary = summary != 0 and not wants_summary
    batch = Pointers(
        pointer_to(scores, storage), row_stride, stride, n, classes,
        pointer_to(labels, 0), label_stride, ignore_index,
        pointer_to(weight, 0.0), weight_stride, pointer_to(sample_weight, 0.0), sample_weight_stride, normalizer,
        pointer_to(margins, 0.0), margin_row_stride, margin_stride,
        pointer_to(upstream, 0.0), upstream_stride,
        pointer_to(losses, result), losses != 0,
        pointer_to(hits, np.uint8(0)), hits != 0, k_of_hits,
        pointer_to(gradient, storage), gradient != 0,
        pointer_to(summary, 0.0), number_stride, wants_summary, has_summary, top, degree,
    )  # fmt: skip
    mode = flush_denormals()
    right = compute_rows(
        batch,
        lay_out(memory.ctypes.data, real, classes, top, slots, terms),
        terms,
        slots,
        first,
        last,
    )
    restore(mode)
    return right


@entry
def size_of(real, classes, top, slots, terms):
    """Return the bytes that a block needs."""
    return lay_out(0, real, classes, top, slots, terms).end


@jit
def compute_rows(batch, m, terms, slots, first, last):
    """Gather the rows that count into blocks, and compute those; return whether all labels are classes or ignored."""
    rows, right = 0, True
    for row in range(first, last):
        label = batch.labels[row * batch.label_stride]
        if label == batch.ignore_index:
            ignore(batch, row)
        elif not 0 <= label < batch.classes:
            right = False
        else:
            m.row[rows], m.label[rows] = row, label
            rows += 1
        if rows == LANES // slots or (rows > 0 and row == last - 1):
            compute_block(batch, m, terms, slots, rows)
            rows = 0
    return right


@jit
def ignore(batch, row):
    """Give an ignored row no loss, no gradient and no hits, whatever it holds; if no row counts a mean is 0 / 0."""
    if batch.wants_losses:
        batch.losses[row] = 0 / batch.normalizer
    if batch.wants_hits:
        batch.hits[2 * row], batch.hits[2 * row + 1] = False, False
    if batch.wants_gradient:
        for i in range(row * batch.n, (row + 1) * batch.n):
            batch.gradient[i] = 0
