"""Long rows, second read: the loss from the summaries of a row's parts, and the gradient of every part."""

import triton
import triton.language as tl

from triton_topk.kernels import blocks, rows, summary, top
from triton_topk.kernels.lq import LOWEST


@triton.jit
def _gradient(
    x,
    offset,
    column,
    label,
    active,
    floor,
    tops,
    g,
    by_loss,
    rate,
    SMOOTH: tl.constexpr,
    HARD: tl.constexpr,
    LQ: tl.constexpr,
):
    """The gradient of the scores x of a block."""
    out = rows.gradient(x, by_loss, rate, SMOOTH, HARD, LQ, False)
    values, gradients = tops
    seldom = active == 0
    if len(values) > 0:
        seldom = seldom | (tl.max(x, axis=1) > floor)
    within = rows.any_within(label, offset, x.shape[1])
    if tl.maximum(within, tl.max(seldom.to(tl.int32), axis=0)) != 0:
        for i in tl.static_range(len(values)):
            out = tl.where(x == values[i][:, None], gradients[i][:, None], out)
        out = tl.where(column[None, :] + offset == label[:, None], -g[:, None], out)
        out = tl.where(active[:, None], out, 0.0)
    return out


@triton.jit(
    do_not_specialize=["n_rows", "n", "scores_stride", "upstream_stride", "ignore_index"],
    do_not_specialize_on_alignment=["labels", "weight", "normalizer", "upstream", "losses"],
)
def finish_kernel(
    scores,
    labels,
    weight,
    normalizer,
    upstream,
    losses,
    gradient,
    summaries,  # [row, number, part]
    n_rows: "i64",
    n: "i32",
    scores_stride: "i64",
    upstream_stride: "i64",
    ignore_index: "i64",
    margin: "fp64",  # see loss.py
    inverse: "fp64",
    rate: "fp64",
    tau: "fp64",
    q: "fp64",
    cut: "fp64",
    truncated: "fp64",
    mix: "fp64",
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
    PARTS: tl.constexpr,
    UNROLL: tl.constexpr,
    ALIGN_ROWS: tl.constexpr,
    ALIGN_N: tl.constexpr,
):
    """A program holds a part of ROWS rows, as in summarise_kernel; without a gradient there is one a row."""
    ACC: tl.constexpr = tl.float64 if scores.dtype.element_ty == tl.float64 else tl.float32
    STEP: tl.constexpr = UNROLL * LANES
    NUMBERS: tl.constexpr = TOP + DEGREE + 3
    PROGRAMS: tl.constexpr = 1 if gradient is None else PARTS
    rate = tl.full([1], rate, ACC)
    part = tl.program_id(0) % PROGRAMS
    row = (tl.program_id(0) // PROGRAMS).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    # what is left of the last program does its last row again
    row = tl.minimum(row, n_rows - 1)
    n = n // ALIGN_N * ALIGN_N
    scores_stride = scores_stride // ALIGN_ROWS * ALIGN_ROWS
    label, active, known = rows.load_label(labels, row, n, ignore_index)
    s_y = rows.load_score(scores + row * scores_stride, label, active, known, ACC)

    of_parts = tl.arange(0, triton.next_power_of_2(PARTS))[None, :]
    v, r, log2_s, total, ties = summary.load(
        summaries + (row * (NUMBERS * PARTS))[:, None] + of_parts,
        PARTS,
        of_parts < PARTS,
        TOP,
        DEGREE,
    )
    v, r, log2_s, total, ties = summary.merge(
        v,
        v[TOP - 1],
        r,
        tl.maximum(v[K - 1], LOWEST),
        log2_s,
        total,
        tl.maximum(v[0], LOWEST),
        ties,
        rate,
        SMOOTH,
        HARD,
        LQ,
        K,
        TOP,
        SORTED,
        REDUCIBLE,
        SCALED,
    )
    for i in tl.static_range(TOP):
        ties += (v[i] == v[K - 1]).to(ACC)
    settings = (margin, inverse, tau, q, cut, truncated, mix)
    loss, slopes, polynomials = rows.loss_and_slopes(
        v, r, log2_s, ties, total, s_y, settings, rate, SMOOTH, HARD, LQ, K, TRUNCATED
    )
    scale = rows.load_scale(row, label, known, weight, normalizer, ACC)
    if losses is not None:  # noqa: SIM102 (one is known when this is compiled, the other is not)
        if part == 0:
            tl.store(losses + row, tl.where(active, loss, 0.0) * scale)

    if gradient is not None:
        scale = scale * rows.load_upstream(row, upstream, upstream_stride, ACC)
        g, svm_g, by_loss = rows.coefficients(
            v, slopes, polynomials, ties, total, scale, SMOOTH, HARD, LQ, K
        )
        tops = ((), ())
        if SMOOTH and TOP > 1:
            _, _, few = rows.pivot(v, K)
            tops = top.by_value(
                v, polynomials, by_loss[2], svm_g, few, rate, LQ, K, THRESHOLD,
                min(triton.next_power_of_2(TOP - 1), 32 // ROWS),
            )  # fmt: skip
        first = part * (BLOCKS * LANES)
        end = tl.minimum(first + BLOCKS * LANES, n)
        whole = first + (end - first) // STEP * STEP
        scores_start = scores + (row * scores_stride)[:, None]
        gradient_start = gradient + (row * n)[:, None]
        column = tl.arange(0, STEP)
        for offset in range(first, whole, STEP):
            x = tl.load(scores_start + column[None, :] + offset).to(ACC)
            out = _gradient(
                x,
                offset,
                column,
                label,
                active,
                v[TOP - 1],
                tops,
                g,
                by_loss,
                rate,
                SMOOTH,
                HARD,
                LQ,
            )
            tl.store(gradient_start + column[None, :] + offset, out.to(gradient.dtype.element_ty))
        column = tl.arange(0, LANES)
        for offset in range(whole, end, LANES):
            x = blocks.load(scores_start + column[None, :], offset, column, n, ACC, True)
            out = _gradient(
                x,
                offset,
                column,
                label,
                active,
                v[TOP - 1],
                tops,
                g,
                by_loss,
                rate,
                SMOOTH,
                HARD,
                LQ,
            )
            tl.store(
                gradient_start + column[None, :] + offset,
                out.to(gradient.dtype.element_ty),
                mask=(column < n - offset)[None, :],
            )
