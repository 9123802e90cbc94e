"""The numbers that a block works with have their places in one piece of memory."""

from typing import NamedTuple

from triton_topk.native.compile import inline, jit
from triton_topk.native.lanes import LANES, ROWS, steps_of
from triton_topk.native.vectors import pointer_to


class Memory(NamedTuple):
    """The fields are pointers, whose comments give the sizes; t of Top and the degree are those of the largest term."""

    # of the scores' arithmetic
    x: int  # (steps, LANES): scores, then weights, then the gradient
    other: int  # (steps, LANES): weights and gradient of the first of two terms
    lists: int  # (t, LANES): the largest scores of the lanes
    spare: int  # (t, ROWS)
    top: int  # (t, ROWS): the largest scores, in order
    low: int  # (ROWS,): the least of Top; inf where fewer than k others are left
    lanes: int  # (degree + 1, LANES): polynomials of the lanes; coefficients of the gradient
    # of float64, of rows
    wide: int  # (degree + 1, LANES): polynomials of the lanes; that of the surplus
    r: int  # (degree + 1, LANES): polynomial of the rest
    below: int  # (t + 1, degree + 1, ROWS): r times the factors of Top from i on
    above: int  # (degree + 1, ROWS): the factors of Top before i
    u: int  # (degree + 1, ROWS): u_j = sigma_{j-1} / sigma_j
    c: int  # (degree + 1, ROWS): coefficients of the gradient of the rest
    a: int  # (t, ROWS): factors a_i + b_i y
    b: int  # (t, ROWS)
    g: int  # (t, ROWS): gradient of Top
    p: int  # (ROWS,): pivot
    surplus: int  # (ROWS,): others equal to it that are not in Top
    s_y: int  # (ROWS,): score of the label
    margin: int  # (ROWS,), beside the loss's
    factor: int  # (ROWS,), of the loss
    scale: int  # (ROWS,), of the gradient
    loss: int  # (ROWS,)
    slope: int  # (ROWS,): -dL/ds_y
    # of whole numbers
    row: int  # (ROWS,): which row of the batch
    label: int  # (ROWS,)
    rank: int  # (ROWS,), how many classes are before it in the order of scores
    places: int  # (steps * LANES,): of the scores that are in Top, or equal to one that is
    members: int  # (steps * LANES,): the index in `top` of the first that is equal
    end: int  # the address behind all


@inline
def _take(at, count, like):
    """Return a pointer to so many numbers of up to 8 bytes, and the address behind them."""
    return pointer_to(at, like), at + (8 * count + 63) // 64 * 64


@jit
def lay_out(at, real, classes, top, slots, terms):
    """Return the places of a block of rows in the memory from an address on, and where they end.

    There is room for the address to become a multiple of 64, as those of vectors had better be.
    """
    at = at // 64 * 64 + 64
    t, degree = top, 0
    for term in terms:
        t, degree = max(t, term.t), max(degree, term.degree)
    width, size = degree + 1, steps_of(classes, slots) * LANES
    x, at = _take(at, size, real)
    other, at = _take(at, size if len(terms) > 1 else 0, real)
    lists, at = _take(at, t * LANES, real)
    spare, at = _take(at, t * ROWS, real)
    largest, at = _take(at, t * ROWS, real)
    low, at = _take(at, ROWS, real)
    lanes, at = _take(at, width * LANES, real)
    wide, at = _take(at, width * LANES, 0.0)
    r, at = _take(at, width * LANES, 0.0)
    below, at = _take(at, (t + 1) * width * ROWS, 0.0)
    above, at = _take(at, width * ROWS, 0.0)
    u, at = _take(at, width * ROWS, 0.0)
    c, at = _take(at, width * ROWS, 0.0)
    a, at = _take(at, t * ROWS, 0.0)
    b, at = _take(at, t * ROWS, 0.0)
    g, at = _take(at, t * ROWS, 0.0)
    p, at = _take(at, ROWS, 0.0)
    surplus, at = _take(at, ROWS, 0.0)
    s_y, at = _take(at, ROWS, 0.0)
    margin, at = _take(at, ROWS, 0.0)
    factor, at = _take(at, ROWS, 0.0)
    scale, at = _take(at, ROWS, 0.0)
    loss, at = _take(at, ROWS, 0.0)
    slope, at = _take(at, ROWS, 0.0)
    row, at = _take(at, ROWS, 0)
    label, at = _take(at, ROWS, 0)
    rank, at = _take(at, ROWS, 0)
    places, at = _take(at, size, 0)
    members, at = _take(at, size, 0)
    return Memory(
        x, other, lists, spare, largest, low, lanes, wide, r, below, above, u, c, a, b, g, p, surplus,
        s_y, margin, factor, scale, loss, slope, row, label, rank, places, members, at,
    )  # fmt: skip
