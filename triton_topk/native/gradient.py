"""The gradient of a term is a polynomial of the weights, but for Top's scores and the label."""

from triton_topk.native.arithmetic import magnitude, some
from triton_topk.native.compile import jit
from triton_topk.native.lanes import LANES, ROWS, of_rows, place
from triton_topk.native.terms import HARD
from triton_topk.native.top import exact, taylor
from triton_topk.native.vectors import full, load, store, where


@jit
def write_gradient(term, m, e, steps, slots, rows, found):
    """e = the gradient of the term; `found` scores are not below Top."""
    if term.kind == HARD:
        degree = hard(m, term.t)
    else:
        degree = coefficients(m, term.k, term.negligible)
        if term.order > 0:
            taylor(m, term.t, term.k, term.order, term.rate, term.threshold)
        else:
            exact(m, term.t, term.k)
        for j in range(term.t):
            store(m.g, j * ROWS, load(m.slope, 0, ROWS) * load(m.g, j * ROWS, ROWS))
    for i in range(1, degree + 1):
        store(m.lanes, i * LANES, of_rows(load(m.c, i * ROWS, ROWS), slots, e))
    evaluate(e, steps, m.lanes, degree)
    for i in range(found):
        e[m.places[i]] = m.g[m.members[i]]
    for r in range(rows):
        e[place(m.label[r], r, slots)] = -m.slope[r]


@jit
def hard(m, t):
    """The scores equal to the pivot share the slope; return the degree of the coefficients, which are 0."""
    slope, low = load(m.slope, 0, ROWS), load(m.low, 0, ROWS)
    zero, one = full(0.0, slope), full(1.0, slope)
    ties = load(m.surplus, 0, ROWS)
    for j in range(t):
        ties = where(load(m.top, j * ROWS, ROWS) == low, ties + one, ties)
    for j in range(t):
        # 0 * slope is NaN in a row whose loss is NaN
        tied = load(m.top, j * ROWS, ROWS) == low
        store(m.g, j * ROWS, where(tied, slope / ties, zero * slope))
    store(m.c, ROWS, zero * slope)
    return 1


@jit
def coefficients(m, k, negligible):
    """c_i = slope (-1)^(i-1) u_{k-1} ... u_{k-i+1} (u_k - u_{k-i}), u_0 = 0; return the degree.

    In a row the last coefficients that rounding would lose are 0: every weight is at most 1.
    """
    slope, u_k = load(m.slope, 0, ROWS), load(m.u, k * ROWS, ROWS)
    zero, product = full(0.0, slope), slope
    for i in range(1, k + 1):
        u = load(m.u, (k - i) * ROWS, ROWS) if i < k else zero
        store(m.c, i * ROWS, product * (u_k - u))
        product = product * (zero - u)
    least = magnitude(load(m.c, ROWS, ROWS)) * full(negligible, zero)
    degree, kept = 1, zero > zero
    for i in range(k, 1, -1):
        c = load(m.c, i * ROWS, ROWS)
        kept = where(kept, kept, magnitude(c) > least)
        store(m.c, i * ROWS, where(kept, c, zero))
        if degree == 1 and some(kept):
            degree = i
    return degree


@jit
def evaluate(e, steps, c, degree):
    """e = sum_i c_i e^i, i = 1..degree, of four steps at once."""
    for at in range(0, steps * LANES, 4 * LANES):
        e0, e1 = load(e, at, LANES), load(e, at + LANES, LANES)
        e2, e3 = load(e, at + 2 * LANES, LANES), load(e, at + 3 * LANES, LANES)
        s0 = load(c, degree * LANES, LANES)
        s1, s2, s3 = s0, s0, s0
        for i in range(degree - 1, 0, -1):
            c_i = load(c, i * LANES, LANES)
            s0, s1, s2, s3 = s0 * e0 + c_i, s1 * e1 + c_i, s2 * e2 + c_i, s3 * e3 + c_i
        store(e, at, s0 * e0)
        store(e, at + LANES, s1 * e1)
        store(e, at + 2 * LANES, s2 * e2)
        store(e, at + 3 * LANES, s3 * e3)
