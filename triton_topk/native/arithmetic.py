"""Some functions of vectors are more than an instruction."""

from triton_topk.native.compile import inline
from triton_topk.native.vectors import (
    bits,
    full,
    least_exponent,
    power_of_fraction,
    power_of_two,
    rint,
    where,
)


@inline
def largest(a, b):
    """Return the larger of the elements of two vectors, that of b if one is NaN."""
    return where(a > b, a, b)


@inline
def smallest(a, b):
    """Return the smaller of the elements of two vectors, that of b if one is NaN."""
    return where(a < b, a, b)


@inline
def magnitude(x):
    zero = full(0.0, x)
    return where(x < zero, zero - x, x)


@inline
def some(mask):
    """Return whether an element of the mask is true."""
    return bits(mask) != 0


@inline
def exp2(t):
    """Return 2^t to about a unit in the last place; 0 where that is no normal number, NaN for NaN."""
    least = full(least_exponent(t), t)
    t = where(t < least, least, t)
    i = rint(t)
    return power_of_fraction(t - i) * power_of_two(i)
