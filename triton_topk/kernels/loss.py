"""The kernel of every loss: one read of the scores, one write of the gradient.

A row goes through three phases, on scores kept in registers or, if STREAM, read again in each: select the largest,
accumulate what the losses need of the rest, write the gradient.  SMOOTH, HARD and LQ say which losses take part;
SMOOTH and LQ together are mixed.  The formulas are in smooth_svm.py and lq.py.  Row quantities have the
shape [ROWS], scores [ROWS, LANES], what a lane has of its columns or of the candidates [ROWS, GROUP].
"""

import triton
import triton.language as tl

from triton_topk.kernels import blocks, candidates, lq, rank_of_label, select, smooth_svm, top
from triton_topk.kernels.logistic import logistic, reciprocal
from triton_topk.kernels.polynomial import include


@triton.jit
def _hard_ties(x, p):
    """1 where x is the k-th largest score; NaN where x is."""
    return tl.where(x == x, (x == p[:, None]).to(x.dtype), x)


@triton.jit
def _gradient(
    kept,
    smooth,
    hard,
    soft,
    rate,
    SMOOTH: tl.constexpr,
    HARD: tl.constexpr,
    LQ: tl.constexpr,
    WEIGHED: tl.constexpr,
):
    """The gradient of some scores, Top's aside; kept: the scores, or if WEIGHED their one exponential."""
    out = tl.zeros_like(kept)
    if SMOOTH:
        p, coefficients = smooth
        e = kept if WEIGHED else smooth_svm.weigh(kept, p[:, None], rate)
        out = smooth_svm.horner(coefficients, e)
    if HARD:
        p, tie = hard
        out = tl.where(kept == p[:, None], tie[:, None], 0.0 * tie[:, None])
    if LQ:
        largest, each = soft
        e = kept if WEIGHED else lq.softmax_weight(kept, largest[:, None])
        out += each[:, None] * e
    return out


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
    BLOCKS: tl.constexpr,
    VEC: tl.constexpr,
    ALIGN_ROWS: tl.constexpr,
    ALIGN_N: tl.constexpr,
    STREAM: tl.constexpr,
):
    ACC: tl.constexpr = tl.float64 if scores.dtype.element_ty == tl.float64 else tl.float32
    GROUP: tl.constexpr = LANES // VEC
    # a position is a slot of a lane, FOLD columns of its vectors
    SLOTS: tl.constexpr = min(VEC, 4)
    FOLD: tl.constexpr = VEC // SLOTS
    HEIGHT: tl.constexpr = triton.next_power_of_2(BLOCKS * FOLD)
    # of GROUP lanes, those that merge the candidates' largest values: 8 candidates each
    FEW: tl.constexpr = min(GROUP, max(HEIGHT, triton.next_power_of_2(TOP * HEIGHT) // 8))
    NONE: tl.constexpr = 2**30
    rate = tl.full([1], rate, ACC)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    # what is left of the last program does its last row again
    row = tl.minimum(row, n_rows - 1)
    # known multiples, in terms that the compiler sees through on every target
    n = n // ALIGN_N * ALIGN_N
    scores_stride = scores_stride // ALIGN_ROWS * ALIGN_ROWS
    column = tl.arange(0, LANES)
    lane = tl.arange(0, GROUP)
    scores_start = row * scores_stride
    gradient_start = row * n
    here = scores + scores_start[:, None] + column[None, :]

    label = tl.load(labels + row).to(tl.int64)
    active = label != ignore_index
    known = active & (label >= 0) & (label < n)
    s_y = tl.load(scores + scores_start + label, mask=known, other=float("nan")).to(ACC)
    # +inf is NaN, as in cross-entropy; an ignored row is a row of masked classes
    s_y = tl.where(s_y == float("inf"), float("nan"), s_y)
    s_y = tl.where(active, s_y, 0.0)
    if margins is not None:
        of_label = margins + row * margins_row_stride + label * margins_class_stride
        margin += K * tl.load(of_label, mask=known, other=0.0).to(tl.float64)
    label = tl.where(known, label, -1).to(tl.int32)

    # Select: the largest score of each position, the positions with the largest of these, and all their scores.
    kept = ()
    firsts = tl.full([ROWS, LANES], float("-inf"), ACC)
    total = tl.zeros([ROWS, LANES], ACC)
    if STREAM:
        for offset in range(0, n, LANES):
            x = blocks.load(here, offset, column, n, ACC, True)
            before = firsts
            firsts = tl.maximum(firsts, x)
            if LQ:
                total = lq.include_softmax(total, before, firsts, x)
    else:
        for b in tl.static_range(BLOCKS):
            x = blocks.load(here, b * LANES, column, n, ACC, b == BLOCKS - 1)
            firsts = tl.maximum(firsts, x)
            kept = kept + (x,)
    reference = lq.softmax_reference(firsts)
    label_at = tl.where(known, label % LANES // VEC * VEC + label % SLOTS, NONE)
    firsts, positions, few_positions = select.take_positions(
        blocks.maximum_of_slots(firsts, VEC, SLOTS),
        label_at,
        lane * VEC,
        TOP - 1,
        HEIGHT,
        GROUP,
        FEW,
        NONE,
    )
    taken = ()
    for s in tl.static_range(SLOTS):
        taken = taken + (firsts[s] != firsts[s],)
    row_scores = scores + scores_start[:, None]
    several, columns = candidates.load(
        row_scores, positions, label, active, n, GROUP, TOP, HEIGHT, LANES, FOLD, SLOTS, ACC
    )
    # fewer lanes have less to merge
    few_lanes = several
    if FEW < GROUP:
        few_lanes, _ = candidates.load(
            row_scores, few_positions, label, active, n, FEW, TOP, HEIGHT, LANES, FOLD, SLOTS, ACC
        )
    v = select.largest_values(few_lanes, firsts, TOP, SORTED)
    largest = tl.maximum(v[0], lq.LOWEST)
    few = v[K - 1] == float("-inf")
    # 0, or NaN where the largest score is +inf
    p = tl.where(few, 0.0, v[K - 1]) + 0.0 * largest
    if not STREAM:
        p += blocks.zeros(here, column, 1, ACC)
    floor = v[TOP - 1]
    if hits is not None:
        rank = rank_of_label.up_to(v, s_y, label, here, column, n, K, LANES, ACC)

    # Accumulate, the positions taken by their candidates.
    r = ()
    for _ in tl.static_range(DEGREE):
        r = r + (tl.zeros([ROWS, GROUP], ACC),)
    ties = tl.zeros([ROWS, LANES], ACC)
    if STREAM:
        if LQ:
            total = total * lq.softmax_weight(reference, largest[:, None])
        if SMOOTH:
            pivot = blocks.infinite_where_taken(p, taken, VEC)
        if SMOOTH or HARD:
            for offset in range(0, n, LANES):
                x = blocks.load(here, offset, column, n, ACC, True)
                if SMOOTH:
                    e = blocks.split(smooth_svm.weigh(x, pivot, rate), VEC)
                    for i in tl.static_range(VEC):
                        r = include(r, e[i])
                if HARD:
                    ties += _hard_ties(x, p)
    else:
        weighed = ()
        parts = ()
        for b in tl.static_range(BLOCKS):
            if HARD:
                ties += _hard_ties(kept[b], p)
            if LQ:
                e = lq.softmax_weight(kept[b], largest[:, None])
                total += e
            if SMOOTH:
                e = smooth_svm.weigh(kept[b], p[:, None], rate)
                parts = parts + (blocks.split(e, VEC),)
            weighed = weighed + (kept[b] if HARD or (SMOOTH and LQ) else e,)
        kept = weighed
        if SMOOTH:
            # slot by slot, for what has been included of a position taken to be dropped at once
            for s in tl.static_range(SLOTS):
                before = r
                for i in tl.static_range(s, VEC, SLOTS):
                    for b in tl.static_range(BLOCKS):
                        r = include(r, parts[b][i])
                r = select.where(taken[s], before, r)
    if LQ:
        total = blocks.sum_where_left(total, taken, VEC)
    if HARD:
        ties = blocks.sum_where_left(ties, taken, VEC)
    for i in tl.static_range(len(several)):
        one = several[i]
        if SMOOTH:
            r = smooth_svm.include_rest(r, smooth_svm.weigh(one, p[:, None], rate), one, floor)
        if HARD:
            ties += _hard_ties(one, p)
        if LQ:
            total += lq.softmax_weight(one, largest[:, None])

    # The losses, and -dL/ds_y of each.
    loss = tl.zeros([ROWS], ACC)
    smooth = None
    hard = None
    soft = None
    share = 1.0
    if LQ:
        share = tl.full([1], mix, ACC)
        total = tl.sum(total, axis=1)
        lq_loss, lq_g = lq.lq_row(
            total,
            largest,
            s_y,
            tl.full([1], q, tl.float64),
            tl.full([1], cut, ACC),
            tl.full([1], truncated, ACC),
            TRUNCATED,
        )
        loss = (1.0 - share) * lq_loss
        lq_g = (1.0 - share) * lq_g
    if SMOOTH:
        r, log2_s = smooth_svm.rest_polynomial(r, K, REDUCIBLE, SCALED)
        r = (tl.full([ROWS], 1.0, ACC),) + r
        d = smooth_svm.top_exponents(v, floor, p, log2_s, rate)
        S = smooth_svm.combine(r, d)
        u = smooth_svm.ratios(S, tl.exp2(log2_s), K)
        # in float64: where tau is small, margin + (p - s_y) / k cancels
        linear = (margin + (p.to(tl.float64) - s_y.to(tl.float64))) * inverse
        svm_loss, svm_g = logistic(linear, reciprocal(u[K - 1]))
        trivial = 0.0 * (r[0] + r[1] + s_y)
        loss += share * tl.where(few, trivial, tl.full([1], tau, ACC) * svm_loss.to(ACC))
        svm_g = share * tl.where(few, trivial, svm_g / K)
    if HARD:
        n_ties = tl.sum(ties, axis=1)
        violation = (margin + (p.to(tl.float64) - s_y.to(tl.float64))) / K
        # a comparison and a maximum lose NaN
        trivial = 0.0 * (n_ties + largest)
        loss = tl.where(violation > 0, violation.to(ACC), 0.0 * s_y) + trivial
        loss = tl.where(few, trivial + 0.0 * s_y, loss)
        hard_g = tl.where(loss > 0, 1.0 / K, 0.0 * loss)
    scale = tl.full([ROWS], 1.0, ACC)
    if weight is not None:
        scale = tl.load(weight + label, mask=known, other=0.0).to(ACC)
    if normalizer is not None:
        scale = scale / tl.load(normalizer).to(ACC)
    if hits is not None:
        counted = active & (loss == loss)
        tl.store(hits + 2 * row, counted & (rank < 1))
        tl.store(hits + 2 * row + 1, counted & (rank < K))
    loss = tl.where(active, loss, 0.0) * scale

    # Write the gradient.
    if gradient is not None:
        if upstream is not None:
            scale = scale * tl.load(upstream + row * upstream_stride).to(ACC)
        g = tl.zeros([ROWS], ACC)
        if LQ:
            lq_g = lq_g * scale
            g = lq_g
            # 0, or NaN, where no other class is left
            soft = (largest, tl.where(total == 0, lq_g, lq_g / total))
        if HARD:
            g = hard_g * scale
            hard = (p, g / tl.maximum(n_ties, 1.0))
        if SMOOTH:
            svm_g = svm_g * scale
            g += svm_g
            coefficients = smooth_svm.gradient_polynomial(u, svm_g, K)
            if not STREAM:
                leading = coefficients[K - 1] + blocks.zeros(here, column, 2, ACC)
                coefficients = coefficients[: K - 1] + (leading,)
            smooth = (p, coefficients)

        if SMOOTH and TOP > 1:
            top_gradients, top_columns = top.gradients(
                several,
                columns,
                floor,
                (r, d, S, u, p, log2_s),
                soft,
                svm_g,
                few,
                rate,
                LQ,
                K,
                THRESHOLD,
                NONE,
            )

        there = gradient + gradient_start[:, None] + column[None, :]
        if STREAM:
            for offset in range(0, n, LANES):
                x = blocks.load(here, offset, column, n, ACC, True)
                out = _gradient(x, smooth, hard, soft, rate, SMOOTH, HARD, LQ, False)
                mask = (column < n - offset)[None, :]
                tl.store(there + offset, out.to(gradient.dtype.element_ty), mask=mask)
        else:
            for b in tl.static_range(BLOCKS):
                out = _gradient(
                    kept[b], smooth, hard, soft, rate, SMOOTH, HARD, LQ, SMOOTH != LQ
                ).to(gradient.dtype.element_ty)
                if b == BLOCKS - 1:
                    tl.store(there + b * LANES, out, mask=(column < n - b * LANES)[None, :])
                else:
                    tl.store(there + b * LANES, out)
        # what follows overwrites some of these, from other threads
        tl.debug_barrier()
        if SMOOTH and TOP > 1:
            for i in tl.static_range(len(top_gradients)):
                tl.store(
                    gradient + gradient_start[:, None] + top_columns[i],
                    top_gradients[i].to(gradient.dtype.element_ty),
                    mask=top_columns[i] < n,
                )
        tl.store(gradient + gradient_start + label, (-g).to(gradient.dtype.element_ty), mask=known)
    # late, where it takes no register from what is above
    if losses is not None:
        tl.store(losses + row, loss)
    if gradient is not None:  # noqa: SIM102 (one is known when this is compiled, the other is not)
        if tl.min(active.to(tl.int32), axis=0) == 0:
            tl.debug_barrier()
            for offset in tl.range(0, n, LANES, loop_unroll_factor=1):
                tl.store(
                    there + offset,
                    tl.zeros([ROWS, LANES], gradient.dtype.element_ty),
                    mask=(column < n - offset)[None, :] & (active == 0)[:, None],
                )
