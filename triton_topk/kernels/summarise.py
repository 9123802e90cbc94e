"""Long rows, first read: the summary of every part of every row."""

import triton
import triton.language as tl

from triton_topk.kernels import rows, summary


@triton.jit
def _load(
    here, offset, column, label, n, ACC: tl.constexpr, COUNT: tl.constexpr, MASKED: tl.constexpr
):
    """COUNT blocks; if MASKED, -inf for the label and outside the row."""
    out = ()
    for b in tl.static_range(COUNT):
        start = offset + b * column.shape[0]
        if MASKED:
            inside = (column < n - start)[None, :] & (column[None, :] != (label - start)[:, None])
            x = tl.load(here + start, mask=inside, other=float("-inf"))
        else:
            x = tl.load(here + start)
        out = out + (x.to(ACC),)
    return out


@triton.jit(
    do_not_specialize=["n_rows", "n", "scores_stride", "ignore_index"],
    do_not_specialize_on_alignment=["labels"],
)
def summarise_kernel(
    scores,
    labels,
    summaries,  # [row, number, part]
    n_rows: "i64",
    n: "i32",
    scores_stride: "i64",
    ignore_index: "i64",
    rate: "fp64",  # log2(e) / (k tau)
    SMOOTH: tl.constexpr,
    HARD: tl.constexpr,
    LQ: tl.constexpr,
    K: tl.constexpr,
    TOP: tl.constexpr,
    DEGREE: tl.constexpr,
    REDUCIBLE: tl.constexpr,
    SCALED: tl.constexpr,
    SORTED: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    BLOCKS: tl.constexpr,
    PARTS: tl.constexpr,
    UNROLL: tl.constexpr,
    VEC: tl.constexpr,
    ALIGN_ROWS: tl.constexpr,
    ALIGN_N: tl.constexpr,
):
    """A program holds a part, BLOCKS blocks of LANES columns, of ROWS rows."""
    ACC: tl.constexpr = tl.float64 if scores.dtype.element_ty == tl.float64 else tl.float32
    GROUP: tl.constexpr = LANES // VEC
    STEP: tl.constexpr = UNROLL * LANES
    NUMBERS: tl.constexpr = TOP + DEGREE + 3
    rate = tl.full([1], rate, ACC)
    slack = tl.minimum(1.0 / rate, 1e30)
    part = tl.program_id(0) % PARTS
    row = (tl.program_id(0) // PARTS).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    # what is left of the last program does its last row again
    row = tl.minimum(row, n_rows - 1)
    n = n // ALIGN_N * ALIGN_N
    scores_stride = scores_stride // ALIGN_ROWS * ALIGN_ROWS
    column = tl.arange(0, LANES)
    here = scores + (row * scores_stride)[:, None] + column[None, :]
    label, _, _ = rows.load_label(labels, row, n, ignore_index)

    lane = summary.empty([ROWS, GROUP], ACC, TOP, DEGREE)
    first = part * (BLOCKS * LANES)
    end = tl.minimum(first + BLOCKS * LANES, n)
    whole = first + (end - first) // STEP * STEP
    for offset in range(first, whole, STEP):
        loaded = _load(here, offset, column, label, n, ACC, UNROLL, False)
        # again for the label: masking what has been loaded would be several instructions a score
        if rows.any_within(label, offset, STEP) != 0:
            loaded = _load(here, offset, column, label, n, ACC, UNROLL, True)
        lane = summary.include_scores(lane, loaded, rate, slack, SMOOTH, HARD, LQ, VEC)
    for offset in range(whole, end, LANES):
        loaded = _load(here, offset, column, label, n, ACC, 1, True)
        lane = summary.include_scores(lane, loaded, rate, slack, SMOOTH, HARD, LQ, VEC)

    v, r, reference, total, soft_reference, ties = lane
    of_part = summary.merge(
        v,
        float("-inf"),
        r,
        reference,
        0.0,
        total,
        soft_reference,
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
    summary.store(summaries + row * (NUMBERS * PARTS) + part, PARTS, of_part)
