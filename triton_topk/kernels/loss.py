"""The kernel of every loss: one read of the scores, one write of the gradient.

A row goes through three phases, on scores kept in registers or, if STREAM, read again in each: select the largest,
accumulate what the losses need of the rest, write the gradient.  SMOOTH, HARD and LQ say which losses take part;
SMOOTH and LQ together are mixed.  The formulas are in smooth_svm.py and lq.py.  Row quantities have the
shape [ROWS], scores [ROWS, LANES], what a lane has of its columns or of the candidates [ROWS, GROUP].

Rows too long for one program are read twice, in PARTS: one launch ends with a summary of each part (summary.py),
the other, FINISH, begins with those of a row.
"""

import triton
import triton.language as tl

from triton_topk.kernels import (
    blocks,
    candidates,
    each_score,
    lq,
    rank_of_label,
    rows,
    select,
    smooth_svm,
    summary,
    top,
)
from triton_topk.kernels.polynomial import include


@triton.jit(
    do_not_specialize=[
        "n_rows",
        "n",
        "scores_stride",
        "margins_row_stride",
        "margins_class_stride",
        "upstream_stride",
        "ignore_index",
    ],
    do_not_specialize_on_alignment=[
        "labels",
        "weight",
        "margins",
        "normalizer",
        "upstream",
        "losses",
        "hits",
    ],
)
def loss_kernel(
    scores,
    labels,
    weight,
    margins,
    normalizer,
    upstream,
    losses,
    hits,
    gradient,
    summaries,  # [row, part, number]
    n_rows: "i64",
    n: "i32",
    scores_stride: "i64",
    margins_row_stride: "i64",
    margins_class_stride: "i64",
    upstream_stride: "i64",
    ignore_index: "i64",
    margin: "fp64",  # k * margin
    inverse: "fp64",  # 1 / (k tau)
    rate: "fp64",  # log2(e) / (k tau)
    tau: "fp64",
    q: "fp64",
    cut: "fp64",  # -log of the truncation
    truncated: "fp64",  # the loss there
    mix: "fp64",  # the share of the smooth SVM beside Lq
    SMOOTH: tl.constexpr,
    HARD: tl.constexpr,
    LQ: tl.constexpr,
    K: tl.constexpr,
    TOP: tl.constexpr,
    DEGREE: tl.constexpr,
    REDUCIBLE: tl.constexpr,
    THRESHOLD: tl.constexpr,
    TRUNCATED: tl.constexpr,
    SCALED: tl.constexpr,
    SORTED: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    VECTORS: tl.constexpr,
    BLOCKS: tl.constexpr,
    VEC: tl.constexpr,
    ALIGN_ROWS: tl.constexpr,
    ALIGN_N: tl.constexpr,
    STREAM: tl.constexpr,
    PARTS: tl.constexpr,
    FINISH: tl.constexpr,
):
    ACC: tl.constexpr = tl.float64 if scores.dtype.element_ty == tl.float64 else tl.float32
    GROUP: tl.constexpr = LANES // VEC
    # a position is a slot of a lane, FOLD columns of its vectors
    SLOTS: tl.constexpr = min(VEC, 4)
    FOLD: tl.constexpr = VEC // SLOTS
    HEIGHT: tl.constexpr = triton.next_power_of_2(BLOCKS * FOLD)
    # positions: the label's, and one for each of the largest
    TAKEN: tl.constexpr = TOP + 1
    # of GROUP lanes, those that merge the candidates' largest values: 8 candidates each
    FEW: tl.constexpr = min(GROUP, max(HEIGHT, triton.next_power_of_2(TAKEN * HEIGHT) // 8))
    NONE: tl.constexpr = 2**30
    # only the last block may end beyond the row, or the part: no part has more blocks than the last one
    LAST: tl.constexpr = BLOCKS - 1
    COLUMNS: tl.constexpr = VECTORS * LANES
    PROGRAMS: tl.constexpr = 1 if FINISH and gradient is None else PARTS
    rate = tl.full([1], rate, ACC)
    # the last row first where rows are read again: L2 still has its scores
    program = tl.num_programs(0) - 1 - tl.program_id(0) if FINISH else tl.program_id(0)
    part = program % PROGRAMS if PROGRAMS > 1 else 0
    row = (program // PROGRAMS).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    # of a row's programs, the one that writes what there is once
    leads = tl.zeros_like(row) + part == 0
    # what is left of the last program does its last row again
    row = tl.minimum(row, n_rows - 1)
    # known multiples, in terms that the compiler sees through on every target
    n = n // ALIGN_N * ALIGN_N
    scores_stride = scores_stride // ALIGN_ROWS * ALIGN_ROWS
    column = tl.arange(0, LANES)
    lane = tl.arange(0, GROUP)
    scores_start = scores + row * scores_stride

    label, active, known = rows.load_label(labels, row, n, ignore_index)
    s_y = rows.load_score(scores_start, label, active, known, ACC)
    if margins is not None:
        of_label = margins + row * margins_row_stride + label * margins_class_stride
        margin += K * tl.load(of_label, mask=known, other=0.0).to(tl.float64)
    label = tl.where(known, label, -1).to(tl.int32)
    first, width, own, has_own = rows.part_of_row(part, n, label, known, COLUMNS, PARTS)
    row_scores = (scores_start + first)[:, None]
    here = row_scores + column[None, :]
    gradient_start = row * n + first

    # Select: the largest score of each position, the positions with the largest of these, and all their scores.
    if PARTS > 1:
        NUMBERS: tl.constexpr = TOP + DEGREE + 4
        STRIDE: tl.constexpr = NUMBERS + TAKEN
        summary_start = summaries + row * (PARTS * STRIDE)
        summary_here = summary_start + part * STRIDE
    if FINISH:
        v, r, log2_s, total, ties, tied = summary.load_merged(
            summary_start,
            rate,
            SMOOTH,
            HARD,
            LQ,
            K,
            TOP,
            DEGREE,
            SORTED,
            REDUCIBLE,
            SCALED,
            PARTS,
            STRIDE,
        )
        positions = ()
        if SMOOTH and K > 1 and gradient is not None:
            positions = summary.load_positions(summary_here + NUMBERS, HEIGHT, TAKEN, GROUP)
    else:
        kept = ()
        maxima = ()
        for _ in tl.static_range(VECTORS):
            maxima = maxima + (tl.full([ROWS, LANES], float("-inf"), ACC),)
        if STREAM:
            for b in range(LAST):
                x = blocks.load(here, b * COLUMNS, column, width, ACC, False, VECTORS)
                maxima = blocks.maximum(maxima, x)
            x = blocks.load(here, LAST * COLUMNS, column, width, ACC, True, VECTORS)
            maxima = blocks.maximum(maxima, x)
        else:
            for b in tl.static_range(BLOCKS):
                x = blocks.load(here, b * COLUMNS, column, width, ACC, b == LAST, VECTORS)
                maxima = blocks.maximum(maxima, x)
                kept = kept + x
        label_at = tl.where(has_own, own % COLUMNS // VEC * VEC + own % SLOTS, NONE)
        taken_slots, elsewhere, positions, few_positions = select.take_positions(
            blocks.maximum_of_slots(maxima, VEC, SLOTS),
            label_at,
            lane * VEC,
            LANES,
            SLOTS,
            TAKEN,
            HEIGHT,
            GROUP,
            FEW,
            NONE,
        )
        taken = ()
        for s in tl.static_range(VECTORS * SLOTS):
            taken = taken + ((taken_slots >> s) % 2 == 1,)
    several, columns = candidates.load(
        row_scores, positions, own, active, width, GROUP, TAKEN, HEIGHT, COLUMNS, FOLD, SLOTS, ACC
    )
    if not FINISH:
        # fewer lanes have less to merge
        few_lanes = several
        if FEW < GROUP:
            few_lanes, _ = candidates.load(
                row_scores,
                few_positions,
                own,
                active,
                width,
                FEW,
                TAKEN,
                HEIGHT,
                COLUMNS,
                FOLD,
                SLOTS,
                ACC,
            )
        v = select.largest_values(few_lanes, TOP, SORTED)
    largest, p, few = rows.pivot(v, K)
    if not STREAM:
        p += blocks.zeros(here, column, 1, ACC)
        # early: behind a loop that threads may leave one by one, shuffles take more instructions
        nothing = blocks.zeros(here, column, 2, ACC)
    floor = smooth_svm.floor_of(v)
    if hits is not None:
        rank = rank_of_label.up_to(
            v,
            s_y,
            label,
            scores_start[:, None] + column[None, :],
            column,
            n if PARTS == 1 else n * (part == 0).to(tl.int32),
            K,
            LANES,
            ACC,
        )

    # Accumulate, the positions taken by their candidates.
    if not FINISH:
        r = ()
        for _ in tl.static_range(DEGREE):
            r = r + (tl.zeros([ROWS, GROUP], ACC),)
        totals = ()
        for _ in tl.static_range(VECTORS):
            totals = totals + (tl.zeros([ROWS, LANES], ACC),)
        ties = totals
        if STREAM:
            pivots = blocks.infinite_where_taken(p, taken, VEC, VECTORS) if SMOOTH else ()
            for b in range(LAST):
                x = blocks.load(here, b * COLUMNS, column, width, ACC, False, VECTORS)
                r, totals, ties = each_score.include_rest(
                    r, totals, ties, x, pivots, p, largest, rate, SMOOTH, HARD, LQ, VEC
                )
            x = blocks.load(here, LAST * COLUMNS, column, width, ACC, True, VECTORS)
            r, totals, ties = each_score.include_rest(
                r, totals, ties, x, pivots, p, largest, rate, SMOOTH, HARD, LQ, VEC
            )
        else:
            weighed = ()
            parts = ()
            for b in tl.static_range(len(kept)):
                if HARD:
                    ties = blocks.add(ties, b % VECTORS, each_score.hard_ties(kept[b], p))
                if LQ:
                    e = lq.softmax_weight(kept[b], largest[:, None])
                    totals = blocks.add(totals, b % VECTORS, e)
                if SMOOTH:
                    e = smooth_svm.weigh(kept[b], p[:, None], rate)
                    parts = parts + (blocks.split(e, VEC),)
                weighed = weighed + (kept[b] if HARD or (SMOOTH and LQ) else e,)
            kept = weighed
            if SMOOTH:
                # slot by slot, for what has been included of a position taken to be dropped at once
                for s in tl.static_range(len(taken)):
                    before = r
                    for i in tl.static_range(s % SLOTS, VEC, SLOTS):
                        for b in tl.static_range(s // SLOTS, len(parts), VECTORS):
                            r = include(r, parts[b][i])
                    r = select.where(taken[s], before, r)
        if LQ:
            total = blocks.sum_where_left(totals, taken, VEC)
        if HARD:
            ties = blocks.sum_where_left(ties, taken, VEC)
        count = tl.zeros([ROWS, GROUP], tl.int32)
        for i in tl.static_range(len(several)):
            one = several[i]
            if SMOOTH:
                e = smooth_svm.weigh(one, p[:, None], rate)
                r, count = smooth_svm.include_rest(r, count, e, one, floor, K)
            if HARD:
                ties += each_score.hard_ties(one, p)
            if LQ:
                total += lq.softmax_weight(one, largest[:, None])
        # of the row
        log2_s = tl.zeros([ROWS], ACC)
        total = tl.sum(total, axis=1) if LQ else log2_s
        ties = tl.sum(ties, axis=1) if HARD else log2_s
        tied = log2_s > 0
        if SMOOTH:
            more = elsewhere == floor[:, None]
            equal, tied = smooth_svm.beyond_top(count, more, TOP, K)
            e = smooth_svm.weigh(floor, p, rate)
            r, log2_s = smooth_svm.rest_polynomial(r, equal, e, K, REDUCIBLE, SCALED)

    if PARTS > 1 and not FINISH:
        summary.store(summary_here, v, r, log2_s, total, ties, tied)
        if SMOOTH and K > 1:
            summary.store_positions(summary_here + NUMBERS, positions, HEIGHT, TAKEN)
    else:
        # The losses, and -dL/ds_y of each.
        loss, svm_g, hard_g, lq_g, polynomials = rows.losses(
            v,
            largest,
            p,
            few,
            r,
            log2_s,
            ties,
            total,
            s_y,
            margin,
            inverse,
            rate,
            tau,
            q,
            cut,
            truncated,
            mix,
            SMOOTH,
            HARD,
            LQ,
            TRUNCATED,
            K,
            SCALED,
        )
        scale = tl.full([ROWS], 1.0, ACC)
        if weight is not None:
            scale = tl.load(weight + label, mask=known, other=0.0).to(ACC)
        if normalizer is not None:
            scale = scale / tl.load(normalizer).to(ACC)
        if hits is not None:
            counted = active & (loss == loss)
            tl.store(hits + 2 * row, counted & (rank < 1), mask=leads)
            tl.store(hits + 2 * row + 1, counted & (rank < K), mask=leads)
        loss = tl.where(active, loss, 0.0) * scale

        # Write the gradient.
        if gradient is not None:
            if upstream is not None:
                scale = scale * tl.load(upstream + row * upstream_stride).to(ACC)
            g = tl.zeros([ROWS], ACC)
            smooth = ()
            hard = ()
            soft = ()
            if LQ:
                lq_g = lq_g * scale
                g = lq_g
                # 0, or NaN, where no other class is left
                soft = (largest, tl.where(total == 0, lq_g, lq_g / total))
            if HARD:
                g = hard_g * scale
                hard = (p, g / tl.maximum(ties, 1.0))
            if SMOOTH:
                svm_g = svm_g * scale
                g += svm_g
                coefficients = smooth_svm.gradient_polynomial(polynomials[4], svm_g, K)
                if not STREAM:
                    leading = coefficients[K - 1] + nothing
                    coefficients = coefficients[: K - 1] + (leading,)
                smooth = (p, coefficients)

            if SMOOTH and K > 1:
                top_gradients, top_columns = top.gradients(
                    several,
                    columns,
                    floor,
                    tied,
                    polynomials,
                    soft,
                    svm_g,
                    few,
                    rate,
                    LQ,
                    K,
                    SCALED,
                    THRESHOLD,
                    NONE,
                )

            row_gradient = (gradient + gradient_start)[:, None]
            there = row_gradient + column[None, :]
            if STREAM:
                # several loads before the first store, which they could not pass
                STEP: tl.constexpr = min(4, triton.next_power_of_2(BLOCKS * VECTORS)) * LANES
                wide = tl.arange(0, STEP)
                if FINISH:
                    # else Triton 3.6 moves all scores to the layout of the summaries
                    nothing = blocks.zeros(row_scores + wide[None, :], wide, 1, ACC)
                    smooth, hard, soft = each_score.add(
                        nothing, smooth, hard, soft, SMOOTH, HARD, LQ
                    )
                for offset in range(0, BLOCKS * COLUMNS, STEP):
                    mask = (wide < width - offset)[None, :]
                    again = tl.load(row_scores + offset + wide[None, :], mask=mask).to(ACC)
                    out = each_score.gradient(
                        again, smooth, hard, soft, rate, SMOOTH, HARD, LQ, False
                    )
                    out = out.to(gradient.dtype.element_ty)
                    tl.store(row_gradient + offset + wide[None, :], out, mask=mask)
            else:
                for b in tl.static_range(len(kept)):
                    out = each_score.gradient(
                        kept[b], smooth, hard, soft, rate, SMOOTH, HARD, LQ, SMOOTH != LQ
                    ).to(gradient.dtype.element_ty)
                    if b >= LAST * VECTORS:
                        tl.store(there + b * LANES, out, mask=(column < width - b * LANES)[None, :])
                    else:
                        tl.store(there + b * LANES, out)
            # what follows overwrites some of these, from other threads
            tl.debug_barrier()
            if SMOOTH and K > 1:
                for i in tl.static_range(len(top_gradients)):
                    tl.store(
                        row_gradient + top_columns[i],
                        top_gradients[i].to(gradient.dtype.element_ty),
                        mask=top_columns[i] < width,
                    )
            tl.store(
                gradient + gradient_start + own, (-g).to(gradient.dtype.element_ty), mask=has_own
            )
        # late, where it takes no register from what is above
        if losses is not None:
            tl.store(losses + row, loss, mask=leads)
        if gradient is not None:  # noqa: SIM102 (one is known when this is compiled, the other is not)
            if tl.min(active.to(tl.int32), axis=0) == 0:
                tl.debug_barrier()
                for offset in tl.range(0, width, LANES, loop_unroll_factor=1):
                    tl.store(
                        there + offset,
                        tl.zeros([ROWS, LANES], gradient.dtype.element_ty),
                        mask=(column < width - offset)[None, :] & (active == 0)[:, None],
                    )
