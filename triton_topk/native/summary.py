"""The rows of a shard are summarized, or get the summary of all classes; see triton_topk/summary.py."""

import numpy as np

from triton_topk.native.compile import jit
from triton_topk.native.lanes import LANES, ROWS
from triton_topk.native.mode import keep_denormals, restore
from triton_topk.native.terms import LQ, SMOOTH


@jit
def number(batch, m, r, i):
    """Return the place of number i of the summary of row r of a block."""
    return i * batch.number_stride + m.row[r]


@jit
def load_top(batch, m, rows):
    """Load the largest scores of all classes, and what the summary tells of the label."""
    others = batch.top + batch.degree
    # scores that are denormal are compared with the row's
    mode = keep_denormals()
    for r in range(ROWS):
        for j in range(batch.top):
            m.top[j * ROWS + r] = batch.summary[number(batch, m, r, j)] if r < rows else -np.inf
    restore(mode)
    for r in range(rows):
        m.s_y[r] = batch.summary[number(batch, m, r, others + 2)]
        m.rank[r] = np.int64(batch.summary[number(batch, m, r, others + 3)])


@jit
def load_rest(batch, term, m, rows):
    """Load the polynomial of the rest, which has all scores equal to the least of Top that are not in Top, or ties."""
    others = batch.top + batch.degree
    for r in range(rows):
        total = batch.summary[number(batch, m, r, others + 1)]
        m.surplus[r] = 0.0
        if term.kind == SMOOTH:
            for j in range(batch.degree):
                m.r[(j + 1) * LANES + r] = batch.summary[number(batch, m, r, batch.top + j)]
        elif term.kind == LQ:
            m.r[LANES + r] = max(total - 1.0, 0.0)
        else:
            m.surplus[r] = total - of_top(m, r, term.t)


@jit
def store_summary(batch, term, m, rows):
    """Store what a term needs of the scores; where one of them is not finite all numbers are NaN."""
    others = batch.top + batch.degree
    for r in range(rows):
        finite = m.top[r] < np.inf and m.r[LANES + r] < np.inf
        for j in range(batch.top):
            batch.summary[number(batch, m, r, j)] = m.top[j * ROWS + r] if finite else np.nan
        if term.kind == SMOOTH:
            few = m.top[(term.k - 1) * ROWS + r] == -np.inf
            for j in range(batch.degree):
                # fewer than k others are all in Top
                r_j = 0.0 if few else m.r[(j + 1) * LANES + r]
                batch.summary[number(batch, m, r, batch.top + j)] = r_j
            batch.summary[number(batch, m, r, others)] = m.surplus[r] > 0
        elif term.kind == LQ:
            total = 0.0 if m.top[r] == -np.inf else 1.0 + m.r[LANES + r]
            batch.summary[number(batch, m, r, others + 1)] = total
        else:
            ties = m.surplus[r] + of_top(m, r, term.t)
            batch.summary[number(batch, m, r, others + 1)] = ties
        batch.summary[number(batch, m, r, others + 2)] = m.s_y[r]
        if batch.k_of_hits > 0:
            batch.summary[number(batch, m, r, others + 3)] = m.rank[r]


@jit
def of_top(m, r, t):
    """Count the scores in Top that are equal to the least of it."""
    count = 0
    for j in range(t):
        count += m.top[j * ROWS + r] == m.low[r]
    return count
