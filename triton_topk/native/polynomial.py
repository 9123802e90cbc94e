"""Polynomials are multiplied, ROWS at a time: coefficient j of a lane is at [j * LANES + lane], and that of 0 is 1."""

from triton_topk.native.compile import jit
from triton_topk.native.lanes import LANES, ROWS, by_slot
from triton_topk.native.vectors import convert, full, load, store


@jit
def multiply(a, at_a, b, at_b, degree):
    """a(y) *= b(y) of the lanes from at_a and from at_b on."""
    for J in range(degree, 0, -1):
        total = load(a, J * LANES + at_a, ROWS) + load(b, J * LANES + at_b, ROWS)
        for i in range(1, J):
            total += load(a, i * LANES + at_a, ROWS) * load(b, (J - i) * LANES + at_b, ROWS)
        store(a, J * LANES + at_a, total)


@jit
def multiply_lanes(r, lanes_of_all, wide, degree, slots):
    """r(y) of each row *= the product of the polynomials of its lanes."""
    for j in range(1, degree + 1):
        store(wide, j * LANES, convert(by_slot(load(lanes_of_all, j * LANES, LANES), slots), wide))
    lanes = LANES
    while lanes > LANES // slots:
        lanes //= 2
        for c in range(0, max(lanes, ROWS), ROWS):
            multiply(wide, c, wide, c + lanes, degree)
    multiply(r, 0, wide, 0, degree)


@jit
def power(b, e, count, degree):
    """b(y) = (1 + e y)^count = sum_j binomial(count, j) e^j y^j, e and count of each row."""
    one = full(1.0, e)
    coefficient = one
    for j in range(1, degree + 1):
        coefficient *= (count - full(j - 1, e)) / full(j, e) * e
        store(b, j * LANES, coefficient)
