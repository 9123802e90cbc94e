"""The kernel of every loss, for rows that it can hold: one read of the scores, one write of the gradient.

A row goes through three phases, on scores kept in registers: select the largest, accumulate what the losses
need of the rest, write the gradient.  SMOOTH, HARD and LQ say which losses take part;
SMOOTH and LQ together are mixed.  The formulas are in smooth_svm.py and lq.py.  Row quantities have the
shape [ROWS], scores [ROWS, LANES], Top [ROWS, SLOTS].
"""

import triton
import triton.language as tl

from triton_topk.kernels import blocks, candidates, lq, rows, select, smooth_svm, top
from triton_topk.kernels.polynomial import include


@triton.jit
def _hard_ties(x, p):
    """1 where x is the k-th largest score; NaN where x is."""
    return tl.where(x == x, (x == p[:, None]).to(x.dtype), x)


@triton.jit(
    do_not_specialize=["n_rows", "n", "scores_stride", "upstream_stride", "ignore_index"],
    do_not_specialize_on_alignment=["labels", "weight", "normalizer", "upstream", "losses"],
)
def loss_kernel(
    scores,
    labels,
    weight,
    normalizer,
    upstream,
    losses,
    gradient,
    n_rows: "i64",
    n: "i32",
    scores_stride: "i64",
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
):
    ACC: tl.constexpr = tl.float64 if scores.dtype.element_ty == tl.float64 else tl.float32
    GROUP: tl.constexpr = LANES // VEC
    # a position is a slot of a lane, FOLD columns of its vectors
    SLOTS: tl.constexpr = min(VEC, 4)
    FOLD: tl.constexpr = VEC // SLOTS
    HEIGHT: tl.constexpr = triton.next_power_of_2(BLOCKS * FOLD)
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

    label, active, known = rows.load_label(labels, row, n, ignore_index)
    s_y = rows.load_score(scores + scores_start, label, active, known, ACC)

    # Select: the largest score of each position, the positions with the largest of these, and all their scores.
    kept = ()
    firsts = tl.full([ROWS, LANES], float("-inf"), ACC)
    total = tl.zeros([ROWS, LANES], ACC)
    for b in tl.static_range(BLOCKS):
        x = blocks.load(here, b * LANES, column, n, ACC, b == BLOCKS - 1)
        firsts = tl.maximum(firsts, x)
        kept = kept + (x,)
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
    largest, p, few = rows.pivot(v, K)
    floor = v[TOP - 1]

    # Accumulate, the positions taken by their candidates.
    r = ()
    for _ in tl.static_range(DEGREE):
        r = r + (tl.zeros([ROWS, GROUP], ACC),)
    ties = tl.zeros([ROWS, LANES], ACC)
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

    log2_s = total
    n_ties = total
    if LQ:
        total = tl.sum(total, axis=1)
    if SMOOTH:
        r, log2_s = smooth_svm.rest_polynomial(r, K, REDUCIBLE, SCALED)
    if HARD:
        n_ties = tl.sum(ties, axis=1)
    settings = (margin, inverse, tau, q, cut, truncated, mix)
    loss, slopes, polynomials = rows.loss_and_slopes(
        v, r, log2_s, n_ties, total, s_y, settings, rate, SMOOTH, HARD, LQ, K, TRUNCATED
    )
    scale = rows.load_scale(row, label, known, weight, normalizer, ACC)
    loss = tl.where(active, loss, 0.0) * scale

    # Write the gradient.
    if gradient is not None:
        scale = scale * rows.load_upstream(row, upstream, upstream_stride, ACC)
        g, svm_g, by_loss = rows.coefficients(
            v, slopes, polynomials, n_ties, total, scale, SMOOTH, HARD, LQ, K
        )
        if SMOOTH and TOP > 1:
            top_gradients, top_columns = top.gradients(
                several,
                columns,
                floor,
                polynomials,
                by_loss[2],
                svm_g,
                few,
                rate,
                LQ,
                K,
                THRESHOLD,
                NONE,
            )

        there = gradient + gradient_start[:, None] + column[None, :]
        for b in tl.static_range(BLOCKS):
            out = rows.gradient(kept[b], by_loss, rate, SMOOTH, HARD, LQ, SMOOTH != LQ).to(
                gradient.dtype.element_ty
            )
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
