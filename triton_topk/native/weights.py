"""The scores of a block become weights, and their factors polynomials."""

from triton_topk.native.arithmetic import exp2, some
from triton_topk.native.compile import inline, jit
from triton_topk.native.lanes import LANES, ROWS, of_rows
from triton_topk.native.polynomial import multiply_lanes
from triton_topk.native.vectors import bits, full, load, lowest_bit, store, where


@jit
def rest_polynomial(m, e, steps, slots, rate, degree, segment):
    """r(y) = the product of the factors 1 + e y of all scores below Top; return how many scores are not below.

    The scores m.x may be overwritten by their weights e, of which those not below are 0.
    """
    for j in range(1, degree + 1):
        store(m.r, j * LANES, full(0.0, load(m.p, 0, ROWS)))
    found = 0
    for first in range(0, steps, segment):
        last = min(first + segment, steps)
        found = multiply_steps(m, e, first, last, slots, rate, degree, found)
        multiply_lanes(m.r, m.lanes, m.wide, degree, slots)
    return found


@jit
def multiply_steps(m, e, first, last, slots, rate, degree, found):
    """m.lanes = the products of the factors 1 + e y of each lane in some steps, four at a time."""
    r = m.lanes
    p = of_rows(load(m.p, 0, ROWS), slots, e)
    low = of_rows(load(m.low, 0, ROWS), slots, e)
    zero, rates = full(0.0, p), full(rate, p)
    store(r, 0, full(1.0, p))
    for j in range(1, degree + 1):
        store(r, j * LANES, zero)
    for i in range(first, last, 4):
        a, found = weigh(m, e, i, slots, p, low, rates, found)
        b, found = weigh(m, e, i + 1, slots, p, low, rates, found)
        c, found = weigh(m, e, i + 2, slots, p, low, rates, found)
        d, found = weigh(m, e, i + 3, slots, p, low, rates, found)
        # (1 + a y) (1 + b y) (1 + c y) (1 + d y) = 1 + s1 y + s2 y^2 + s3 y^3 + s4 y^4
        ab, cd, ab2, cd2 = a + b, c + d, a * b, c * d
        s1, s2, s3, s4 = ab + cd, ab2 + cd2 + ab * cd, ab * cd2 + ab2 * cd, ab2 * cd2
        r0, r1 = load(r, degree * LANES, LANES), load(r, (degree - 1) * LANES, LANES)
        r2 = load(r, (degree - 2) * LANES, LANES) if degree > 1 else zero
        r3 = load(r, (degree - 3) * LANES, LANES) if degree > 2 else zero
        for j in range(degree, 0, -1):
            r4 = load(r, (j - 4) * LANES, LANES) if j > 3 else zero
            store(r, j * LANES, r0 + s1 * r1 + s2 * r2 + s3 * r3 + s4 * r4)
            r0, r1, r2, r3 = r1, r2, r3, r4
    return found


@inline
def weigh(m, e, i, slots, p, low, rate, found):
    """e = 2^((x - p) rate) of a step, or 0 for x >= low; return them, and how many were not below so far."""
    x = load(m.x, i * LANES, LANES)
    high = x >= low
    if some(high):
        found = note(m, i, bits(high), slots, found)
    weights = where(high, full(0.0, x), exp2((x - p) * rate))
    store(e, i * LANES, weights)
    return weights, found


@jit
def note(m, i, lanes, slots, found):
    """Note the scores of a step, of the lanes whose bits are set, that are not below Top; return how many there are."""
    rows = LANES // slots
    while lanes != 0:
        lane = lowest_bit(lanes)
        lanes &= lanes - 1
        at, r = i * LANES + lane, lane * rows // LANES
        score = m.x[at]
        member = r
        while m.top[member] > score:
            member += ROWS
        m.places[found], m.members[found] = at, member
        found += 1
        if score == m.low[r]:
            m.surplus[r] += 1.0
    return found
