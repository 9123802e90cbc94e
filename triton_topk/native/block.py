"""A block of rows is read, goes through the terms of the loss, and is written."""

import math

import numpy as np

from triton_topk.native.compile import jit
from triton_topk.native.gradient import write_gradient
from triton_topk.native.lanes import LANES, ROWS, mask_row, place, read_row, steps_of, write_row
from triton_topk.native.losses import hard_loss, loss_of_z
from triton_topk.native.select import select
from triton_topk.native.summary import load_rest, load_top, store_summary
from triton_topk.native.terms import HARD, LQ
from triton_topk.native.top import include_surplus, multiply_factors, ratios
from triton_topk.native.vectors import convert, full, load, store, where
from triton_topk.native.weights import rest_polynomial


@jit
def compute_block(batch, m, terms, slots, rows):
    """Compute the losses of the rows m.row[0], ..., and their hits and gradient if they are asked for."""
    steps = steps_of(batch.classes, slots)
    for r in range(LANES // slots):
        if r < rows:
            read(batch, m, r, slots, steps)
        else:
            mask_row(0, m.x, r, slots, steps)
    if batch.has_summary:
        load_top(batch, m, rows)
    else:
        t = batch.top
        for term in terms:
            t = max(t, term.t)
        select(m.x, steps, slots, t, m.lists, m.spare, m.top)
    for i in range(len(terms)):
        term = terms[i]
        # the weights of the last term take the place of the scores
        e = m.x if i == len(terms) - 1 else m.other
        choose_pivot(m, term.k, term.t)
        found = rest_polynomial(m, e, steps, slots, term.rate, term.degree, term.segment)
        if batch.has_summary:
            load_rest(batch, term, m, rows)
        else:
            subtract_top(m, term.t)
        if term.kind != HARD:
            include_surplus(m, term.rate, term.degree)
        if batch.wants_summary:
            store_summary(batch, term, m, rows)
            continue
        if term.kind != HARD:
            multiply_factors(m, term.t, term.rate, term.degree)
            ratios(m, term.k, term.degree)
        compute_losses(term, m, rows)
        if batch.wants_gradient:
            write_gradient(term, m, e, steps, slots, rows, found)
    if batch.wants_gradient and len(terms) > 1:
        for j in range(steps):
            both = load(m.x, j * LANES, LANES) + load(m.other, j * LANES, LANES)
            store(m.x, j * LANES, both)
    if not batch.wants_summary:
        for r in range(rows):
            write(batch, m, r, slots)


@jit
def read(batch, m, r, slots, steps):
    """Read a row, without the score of its label, which is masked."""
    row, y = m.row[r], m.label[r]
    at = place(y, r, slots)
    read_row(batch.scores, row * batch.row_stride, batch.stride, batch.n, m.x, r, slots, steps)
    m.s_y[r] = m.x[at]
    if batch.k_of_hits > 0:
        # of equal scores the lower class comes first
        rank = 0
        for i in range(batch.n):
            x = m.x[place(i, r, slots)]
            rank += x > m.x[at] or (x == m.x[at] and i < y)
        m.rank[r] = rank
    m.x[at] = -np.inf
    m.margin[r] = batch.margins[row * batch.margin_row_stride + y * batch.margin_stride]
    weight = (
        batch.weight[y * batch.weight_stride]
        * batch.sample_weight[row * batch.sample_weight_stride]
    )
    m.factor[r] = weight / batch.normalizer
    m.scale[r] = m.factor[r] * batch.upstream[row * batch.upstream_stride]
    m.loss[r] = 0.0


@jit
def write(batch, m, r, slots):
    """Write what was computed of a row; where its loss is NaN there are no hits."""
    row, loss = m.row[r], m.loss[r]
    if batch.wants_losses:
        batch.losses[row] = loss * m.factor[r]
    if batch.wants_hits:
        counted, rank = loss == loss, m.rank[r]
        batch.hits[2 * row] = counted and rank < 1
        batch.hits[2 * row + 1] = counted and rank < batch.k_of_hits
    if batch.wants_gradient:
        write_row(batch.gradient, row * batch.n, batch.n, m.x, r, slots)


@jit
def choose_pivot(m, k, t):
    """p = the k-th largest, low = the least of Top that is not -inf.

    In a row with fewer than k others none is in Top, and p = the largest, or 0.
    """
    v_k, v0 = load(m.top, (k - 1) * ROWS, ROWS), load(m.top, 0, ROWS)
    masked, low = full(-np.inf, v_k), v_k
    for j in range(k, t):
        v = load(m.top, j * ROWS, ROWS)
        low = where(v > masked, v, low)
    few = v_k == masked
    store(m.low, 0, where(few, full(np.inf, low), low))
    p = convert(where(few, where(v0 == masked, full(0.0, v0), v0), v_k), m.p)
    store(m.p, 0, p)
    store(m.surplus, 0, full(0.0, p))


@jit
def subtract_top(m, t):
    """Take those that are in Top from the count of the scores equal to the least of Top."""
    surplus, low = load(m.surplus, 0, ROWS), load(m.low, 0, ROWS)
    for j in range(t):
        equal = load(m.top, j * ROWS, ROWS) == low
        surplus = where(equal, surplus - full(1.0, surplus), surplus)
    store(m.surplus, 0, surplus)


@jit
def compute_losses(term, m, rows):
    """Add the loss of the term to that of each row; m.slope = -dL/ds_y, with weights and upstream gradient."""
    for r in range(rows):
        s_y, v_k = m.s_y[r], m.top[(term.k - 1) * ROWS + r]
        margin = term.margin + (0.0 if term.kind == LQ else m.margin[r])
        # in float64, since margin and (v_k - s_y) / k cancel
        violation = (term.k * margin + (v_k - s_y)) / term.k
        if v_k == -np.inf:
            # fewer than k others: 0, or NaN if the label is masked too
            loss = 0 * s_y
            slope = loss
        elif term.kind == HARD:
            loss, slope = hard_loss(violation)
        else:
            loss, slope = loss_of_z(term, violation / term.tau - math.log(m.u[term.k * ROWS + r]))
        # NaN among the others is in the sum of the weights, and NaN of the margin in the violation
        finite = s_y < np.inf and m.top[r] < np.inf and m.r[LANES + r] < np.inf
        if not finite or violation != violation:
            loss, slope = np.nan, np.nan
        m.loss[r] += term.share * loss
        m.slope[r] = term.share * slope * m.scale[r] / term.k
