"""One kernel computes every loss, with one read of the scores and one write of the gradient.

A row goes through three phases, on scores kept in registers or, if the layout says so, read again in each: select the
largest, accumulate what the losses need of the rest, write the gradient.  The formulas are in smooth_svm.py,
hard_svm.py and lq.py, and formulas.py says which of them take part.  Row quantities have the shape [ROWS], scores
[ROWS, COLUMNS], what a lane has of its columns or of the candidates [ROWS, LANES].

Rows too long for one program are read twice, in parts.  The first launch ends with a summary of each part, and the
second one, whose layout has `finish`, begins with those of all parts of a row.  So do launches on a shard of classes:
one that has `summarize` ends with a row's summary, and one that has `merged` begins with that of all shards.
"""

import triton
import triton.language as tl

from triton_topk.kernels import accumulate, blocks, formulas, rows, select, shard, summary, top
from triton_topk.kernels import gradient as gradients
from triton_topk.kernels import hits as topk_hits
from triton_topk.kernels.constants import Numbers


@triton.jit(
    do_not_specialize=[
        "n_rows",
        "n",
        "scores_stride",
        "margins_row_stride",
        "margins_class_stride",
        "upstream_stride",
        "ignore_index",
        "n_counted",
    ],
    do_not_specialize_on_alignment=[
        "labels",
        "weight",
        "sample_weight",
        "margins",
        "normalizer",
        "upstream",
        "losses",
        "hits",
    ],
)
def loss_kernel(
    scores,  # [N, C], rows of adjacent classes
    labels,  # [N]
    weight,  # [C] or None
    sample_weight,  # [N] or None
    margins,  # [N, C] or None
    normalizer,  # [] or None
    upstream,  # [N] or None
    losses,  # [N] or None; or the summaries of a shard [NUMBERS, N]
    hits,  # [N, 2] or None; if there are any, a shard's summaries have ranks
    gradient,  # [N, C] or None
    summaries,  # [N, PARTS, SUMMARY] or None; or those of all shards [NUMBERS, N]
    n_rows: "i64",
    n: "i32",
    scores_stride: "i64",
    margins_row_stride: "i64",
    margins_class_stride: "i64",
    upstream_stride: "i64",
    ignore_index: "i64",
    n_counted: "i32",  # labels, whose number is the normalizer; or 0
    margin: "fp64",  # what follows: see constants.Numbers
    inverse: "fp64",
    rate: "fp64",
    tau: "fp64",
    q: "fp64",
    cut: "fp64",
    truncated: "fp64",
    mix: "fp64",
    LOSS: tl.constexpr,  # constants.Formula
    LAYOUT: tl.constexpr,  # constants.Layout
):
    ACC: tl.constexpr = LAYOUT.acc
    rate = tl.full([1], rate, ACC)
    numbers = Numbers(margin, inverse, rate, tau, q, cut, truncated, mix)
    if normalizer is not None:
        divisor = rows.load_normalizer(normalizer, labels, n_counted, ignore_index).to(ACC)

    # Locate the rows of the program, and its part of them.
    PARTS: tl.constexpr = LAYOUT.parts if LAYOUT.accumulates or gradient is not None else 1
    program = tl.program_id(0)
    if not LAYOUT.accumulates:
        # the last row first: L2 still has its scores
        program = tl.num_programs(0) - 1 - program
    part = program % PARTS if PARTS > 1 else 0
    number = (program // PARTS).to(tl.int64) * LAYOUT.rows + tl.arange(0, LAYOUT.rows)
    # of a row's programs, one writes the row's loss and hits
    first_part = tl.zeros_like(number) + part == 0
    # beyond the batch, the last program does the last row again
    number = tl.minimum(number, n_rows - 1)
    # known multiples, in terms that the compiler sees through on every target
    n = n // LAYOUT.align_n * LAYOUT.align_n
    scores_stride = scores_stride // LAYOUT.align_rows * LAYOUT.align_rows
    scores += number * scores_stride
    n_classes = n + 1 if LAYOUT.merged else n  # the class behind stands for those of other shards
    label, active, valid = rows.load_label(labels + number, n_classes, ignore_index)
    if LAYOUT.merged:
        summaries += number
        s_y = shard.load_score(summaries, n_rows, active, LOSS, LAYOUT)
    else:
        s_y = rows.load_score(scores, label, active, valid, LAYOUT)
    if margins is not None:
        margins += number * margins_row_stride + label * margins_class_stride
        margin += LOSS.k * tl.load(margins, mask=valid, other=0.0).to(tl.float64)
    label = tl.where(valid, label, -1).to(tl.int32)
    row = rows.Row(number, label, active, valid, s_y, margin)
    if LAYOUT.parts > 1 and not LAYOUT.merged:
        summaries += number * (LAYOUT.parts * LAYOUT.summary)
        part_summary = summaries + part * LAYOUT.summary
    # of a row's programs, one reads it again for the rank of the label
    n_once = n * (part == 0).to(tl.int32) if LAYOUT.parts > 1 else n
    part = rows.part_of_row(scores, part, n, label, valid, LAYOUT)

    # Select the largest scores, among all those of the positions that have the largest maxima.
    kept = ()
    if LAYOUT.finish:
        v, rest = summary.load_merged(summaries, rate, LOSS, LAYOUT)
        if LOSS.has_top and gradient is not None:
            positions = summary.load_positions(part_summary, LOSS, LAYOUT)
            candidates = select.load_candidates(part, positions, active, LOSS, LAYOUT)
    elif LAYOUT.accumulates or gradient is not None:
        maxima, kept = select.maxima(part, LAYOUT)
        taken = select.take_positions(blocks.maximum_of_slots(maxima, LAYOUT), part, LOSS, LAYOUT)
    if LAYOUT.merged:
        v, rest = shard.load(summaries, n_rows, LOSS, LAYOUT)
    elif not LAYOUT.finish:
        candidates = select.load_candidates(part, taken.columns, active, LOSS, LAYOUT)
        narrow = candidates
        if taken.narrow[0].shape[1] < LAYOUT.lanes:
            # fewer lanes have less to merge
            narrow = select.load_candidates(part, taken.narrow, active, LOSS, LAYOUT)
        v = select.largest_scores(narrow.scores, LOSS)
    largest = select.largest(v, LOSS, LAYOUT)
    zeros = None
    if not LAYOUT.stream:
        # 0 in the layout of the scores, so that what is added to it gets that layout
        of_pivot = blocks.zeros(part.scores, 1, LAYOUT.columns, LAYOUT)
        largest = select.with_pivot(largest, largest.p + of_pivot)
        # early: behind a loop that threads may leave one by one, shuffles take more instructions
        zeros = blocks.zeros(part.scores, 2, LAYOUT.columns, LAYOUT)
    if hits is not None and LAYOUT.merged:
        rank = shard.load_rank(summaries, n_rows, LOSS)
    elif hits is not None:
        rank = topk_hits.rank(largest.v, row, scores[:, None], n_once, LOSS, LAYOUT)

    # Accumulate what the losses need of all others.
    if LAYOUT.accumulates:
        if LAYOUT.stream:
            r, sums = accumulate.of_stream(part, taken, largest, rate, LOSS, LAYOUT)
        else:
            r, sums, kept = accumulate.of_kept(kept, taken, largest, rate, LOSS, LAYOUT)
        rest = accumulate.over_lanes(r, sums, taken, candidates, largest, rate, LOSS, LAYOUT)

    if LAYOUT.parts > 1 and LAYOUT.accumulates:
        summary.store(part_summary, largest.v, rest)
        if LOSS.has_top:
            summary.store_positions(part_summary, taken.columns, LOSS, LAYOUT)
    elif LAYOUT.summarize:
        rank = rank if hits is not None else 0 * row.label
        shard.store(losses + number, n_rows, largest, rest, s_y, rank, LOSS)
    else:
        # The losses, and -dL/ds_y of each.
        loss, smooth_slope, sum_slope, polynomials = formulas.row_loss(
            largest, rest, row, numbers, LOSS
        )
        scale = tl.full([LAYOUT.rows], 1.0, ACC)
        if weight is not None:
            scale = tl.load(weight + label, mask=valid, other=0.0).to(ACC)
        if sample_weight is not None:
            scale = scale * tl.load(sample_weight + number, mask=valid, other=0.0).to(ACC)
        if normalizer is not None:
            scale = scale / divisor
        if hits is not None:
            topk_hits.store(hits, rank, row, loss, first_part, LOSS)
        loss = tl.where(active, loss, 0.0) * scale

        # The gradient: of all scores, then Top and the label over it.
        if gradient is not None:
            if upstream is not None:
                scale = scale * tl.load(upstream + number * upstream_stride).to(ACC)
            smooth_slope = smooth_slope * scale
            sum_slope = sum_slope * scale
            of_row = formulas.row_gradient(
                largest, rest, polynomials, smooth_slope, sum_slope, zeros, LOSS
            )
            if LOSS.has_top:
                if LAYOUT.merged:
                    # late: Triton would move them to the layout of the summary
                    candidates = select.load_candidates(part, taken.columns, active, LOSS, LAYOUT)
                top_gradients, top_columns = top.gradients(
                    candidates,
                    largest,
                    rest.tied,
                    polynomials,
                    smooth_slope,
                    of_row.share,
                    rate,
                    LOSS,
                )
            gradient += number * n + part.first
            pointers = gradient[:, None]
            if LAYOUT.stream:
                gradients.store_stream(pointers, of_row, part, rate, LOSS, LAYOUT)
            else:
                gradients.store_kept(pointers, kept, of_row, part, rate, LOSS, LAYOUT)
            # what follows overwrites some of these, from other threads
            tl.debug_barrier()
            if LOSS.has_top:
                gradients.store_top(pointers, top_gradients, top_columns, part.width)
            of_label = -(smooth_slope + sum_slope)
            tl.store(
                gradient + part.label, of_label.to(gradient.dtype.element_ty), mask=part.has_label
            )
        # late, where it takes no register from what is above
        if losses is not None:
            tl.store(losses + number, loss, mask=first_part)
        if gradient is not None:
            gradients.clear_ignored(pointers, row, part, LAYOUT)
