"""The kernel of every loss: one read of the scores, one write of the gradient.

A row goes through three phases, on scores kept in registers or, if STREAM, read again in each: select the largest,
accumulate what the losses need of the rest, write the gradient.  SMOOTH, HARD and LQ say which losses take part;
SMOOTH and LQ together are mixed.  The formulas are in smooth_svm.py and lq.py.  Row quantities have the
shape [ROWS], scores [ROWS, LANES], Top [ROWS, SLOTS].
"""

import triton
import triton.language as tl

from triton_topk.kernels import lq, smooth_svm
from triton_topk.kernels.logistic import logistic
from triton_topk.kernels.select import insert, take_top


@triton.jit
def _load_block(here, offset, left, label, active, lane, ACC: tl.constexpr, MASKED: tl.constexpr):
    """Scores of the others in columns offset + lane; -inf for the label and outside the row."""
    inside = active[:, None]
    if MASKED:
        inside = inside & (lane < left)[None, :]
    x = tl.load(here + offset, mask=inside, other=float("-inf")).to(ACC)
    return tl.where(lane[None, :] == (label - offset)[:, None], float("-inf"), x)


@triton.jit
def _hard_ties(x, p):
    """1 where x is the k-th largest score; NaN where x is."""
    return tl.where(x == x, (x == p[:, None]).to(x.dtype), x)


@triton.jit
def _block_gradient(
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
    """The gradient of a block, Top's aside; kept: its scores, or if WEIGHED their one exponential."""
    out = tl.zeros_like(kept)
    if SMOOTH:
        p, e_floor, G_floor, coefficients = smooth
        e = kept if WEIGHED else smooth_svm.weigh(kept, p, rate)
        # a tie of Top's smallest value gets that value's gradient
        out = tl.where(e == e_floor[:, None], G_floor[:, None], smooth_svm.horner(coefficients, e))
    if HARD:
        p, tie = hard
        out = tl.where(kept == p[:, None], tie[:, None], 0.0 * tie[:, None])
    if LQ:
        largest, each = soft
        e = kept if WEIGHED else lq.softmax_weight(kept, largest[:, None])
        out += each[:, None] * e
    return out


@triton.jit
def _store_top(
    scores,
    scores_start,
    gradient,
    gradient_start,
    origin,
    V,
    G,
    label,
    n,
    inside,
    LANES: tl.constexpr,
    BLOCKS,
    CHUNK: tl.constexpr,
):
    """The gradient of Top: wherever a lane that gave one of its values holds that value."""
    for first in range(0, BLOCKS, CHUNK):
        block = first + tl.arange(0, CHUNK)
        column = origin[:, :, None] + (block * LANES)[None, None, :]
        x = tl.load(
            scores + scores_start[:, None, None] + column,
            mask=inside[:, None, None] & (column < n),
            other=float("-inf"),
        ).to(V.dtype)
        tl.store(
            gradient + gradient_start[:, None, None] + column,
            (G[:, :, None] + tl.zeros_like(x)).to(gradient.dtype.element_ty),
            mask=(x == V[:, :, None]) & (column != label[:, None, None]),
        )


@triton.jit
def loss_kernel(
    scores,
    labels,
    weight,
    normalizer,
    upstream,
    losses,
    gradient,
    n_rows,
    n,
    scores_stride,
    upstream_stride,
    ignore_index,
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
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    BLOCKS: tl.constexpr,
    DEPTH: tl.constexpr,
    SLOTS: tl.constexpr,
    CHUNK: tl.constexpr,
    ALIGN: tl.constexpr,
    STREAM: tl.constexpr,
):
    ACC: tl.constexpr = tl.float64 if scores.dtype.element_ty == tl.float64 else tl.float32
    rate = tl.full([1], rate, ACC)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < n_rows
    # multiples of ALIGN, in terms that the compiler sees through on every target
    n = n // ALIGN * ALIGN
    scores_stride = scores_stride // ALIGN * ALIGN
    lane = tl.arange(0, LANES)
    scores_start = row * scores_stride
    gradient_start = row * n
    here = scores + scores_start[:, None] + lane[None, :]

    label = tl.load(labels + row, mask=inside, other=0).to(tl.int64)
    active = inside & (label != ignore_index)
    known = active & (label >= 0) & (label < n)
    s_y = tl.load(scores + scores_start + label, mask=known, other=float("nan")).to(ACC)
    # +inf is NaN, as in cross-entropy; an ignored row is a row of masked classes
    s_y = tl.where(s_y == float("inf"), float("nan"), s_y)
    s_y = tl.where(active, s_y, 0.0)
    label = tl.where(known, label, -1).to(tl.int32)

    # Select.
    blocks = ()
    lists = ()
    total = tl.zeros([ROWS, LANES], ACC)
    if STREAM:
        for _ in tl.static_range(DEPTH):
            lists = lists + (tl.full([ROWS, LANES], float("-inf"), ACC),)
        for offset in range(0, n, LANES):
            x = _load_block(here, offset, n - offset, label, active, lane, ACC, True)
            before = lists[0]
            lists = insert(lists, x, DEPTH)
            if LQ:
                total = lq.include_softmax(total, before, lists[0], x)
    else:
        for b in tl.static_range(BLOCKS):
            x = _load_block(
                here, b * LANES, n - b * LANES, label, active, lane, ACC, b == BLOCKS - 1
            )
            lists = insert(lists, x, DEPTH)
            blocks = blocks + (x,)
    if SMOOTH or HARD:
        v, origin = take_top(lists, TOP, SLOTS)
    else:
        v = (tl.max(lists[0], axis=1),)
    largest = tl.maximum(v[0], lq.LOWEST)
    few = v[K - 1] == float("-inf")
    p = tl.where(few, 0.0, v[K - 1])
    floor = v[TOP - 1]
    e_floor = tl.exp2((floor - p) * rate)

    # Accumulate.
    r = ()
    for _ in tl.static_range(DEGREE):
        r = r + (tl.zeros([ROWS, LANES], ACC),)
    count = tl.zeros([ROWS, LANES], tl.int32)
    ties = tl.zeros([ROWS, LANES], ACC)
    kept = ()
    if STREAM:
        if LQ:
            total = total * lq.softmax_weight(lq.softmax_reference(lists[0]), largest[:, None])
        if SMOOTH or HARD:
            for offset in range(0, n, LANES):
                x = _load_block(here, offset, n - offset, label, active, lane, ACC, True)
                if SMOOTH:
                    e = smooth_svm.weigh(x, p, rate)
                    r, count = smooth_svm.include_rest(r, count, e, x, floor)
                if HARD:
                    ties += _hard_ties(x, p)
    else:
        for b in tl.static_range(BLOCKS):
            keep = blocks[b]
            if SMOOTH:
                e = smooth_svm.weigh(blocks[b], p, rate)
                r, count = smooth_svm.include_rest(r, count, e, blocks[b], floor)
                if not LQ:
                    keep = e
            if HARD:
                ties += _hard_ties(blocks[b], p)
            if LQ:
                e = lq.softmax_weight(blocks[b], largest[:, None])
                total += e
                if not SMOOTH:
                    keep = e
            kept = kept + (keep,)

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
        finite = ()
        for i in tl.static_range(TOP):
            finite = finite + (tl.maximum(v[i], lq.LOWEST),)
        r, log2_s = smooth_svm.rest_polynomial(r, count, e_floor, K, TOP, REDUCIBLE)
        T = smooth_svm.top_polynomial(finite, rate)
        u, top_weight, S_below, S_K = smooth_svm.combine(T, r, finite, p, log2_s, rate, K)
        # in float64: where tau is small, margin + (p - s_y) / k cancels
        linear = (margin + (p.to(tl.float64) - s_y.to(tl.float64))) * inverse
        svm_loss, svm_g = logistic(linear, 1.0 / u[K - 1])
        trivial = 0.0 * (r[0] + finite[0] + s_y)
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
    if losses is not None:
        tl.store(losses + row, loss * scale, mask=inside)

    # Write the gradient.
    if gradient is not None:
        if normalizer is not None:
            scale = scale / tl.load(normalizer).to(ACC)
        if upstream is not None:
            scale = scale * tl.load(upstream + row * upstream_stride, mask=inside, other=0.0).to(
                ACC
            )
        scale = tl.where(active, scale, 0.0)
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
            V = smooth_svm.stack(finite, SLOTS)
            if THRESHOLD is None:
                G = smooth_svm.top_gradient(
                    V, T, top_weight, r, S_below, S_K, finite, p, log2_s, rate, K
                )
            else:
                G = smooth_svm.top_gradient_taylor(V, u, p, rate, K, THRESHOLD)
            G = tl.where(few[:, None], svm_g[:, None], svm_g[:, None] * G)
            coefficients = smooth_svm.gradient_polynomial(u, svm_g, K)
            smooth = (p, e_floor, smooth_svm.last_top(G, TOP - 1), coefficients)
            if LQ:
                G += soft[1][:, None] * lq.softmax_weight(V, largest[:, None])

        there = gradient + gradient_start[:, None] + lane[None, :]
        if STREAM:
            for offset in range(0, n, LANES):
                x = _load_block(here, offset, n - offset, label, active, lane, ACC, True)
                out = _block_gradient(x, smooth, hard, soft, rate, SMOOTH, HARD, LQ, False)
                mask = inside[:, None] & (lane < n - offset)[None, :]
                tl.store(there + offset, out.to(gradient.dtype.element_ty), mask=mask)
        else:
            for b in tl.static_range(BLOCKS):
                out = _block_gradient(
                    kept[b], smooth, hard, soft, rate, SMOOTH, HARD, LQ, SMOOTH != LQ
                )
                mask = inside[:, None]
                if b == BLOCKS - 1:
                    mask = mask & (lane < n - b * LANES)[None, :]
                tl.store(there + b * LANES, out.to(gradient.dtype.element_ty), mask=mask)
        # what follows overwrites some of these, from other threads
        tl.debug_barrier()
        if SMOOTH:
            _store_top(
                scores,
                scores_start,
                gradient,
                gradient_start,
                origin,
                V,
                G,
                label,
                n,
                active,
                LANES,
                BLOCKS,
                CHUNK,
            )
        tl.store(gradient + gradient_start + label, (-g).to(gradient.dtype.element_ty), mask=known)
