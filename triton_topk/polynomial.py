"""Elementary symmetric polynomials are the coefficients of products of 1 + e_i y, without their leading 1."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LANES = 64
# The coefficients of a row are in the range of float64 up to this, and those of some columns in that of float32.
_LIMIT, _LIMIT_FLOAT32 = 1e280, 1e30


def largest_coefficient(n: int, degree: int) -> int:
    """Return the largest coefficient up to a degree of the polynomial of n scores, each of which has e = 1."""
    return math.comb(n, min(degree, n // 2))


def in_range(n: int, degree: int) -> bool:
    """Return whether float64 holds the polynomial of n equal scores."""
    return largest_coefficient(n, degree) < _LIMIT


def of_weights(e: Tensor, degree: int) -> Tensor:
    """Return sigma_1, ..., sigma_degree of each row of e (N, width), (degree, N), or fewer where the others are 0.

    Lanes multiply the factors 1 + e y of their columns, and a tree multiplies the lanes' polynomials.
    """
    n_rows, width = e.shape
    merged = min(LANES, -(-width // LANES))
    buffers = e.new_zeros((2, min(degree, merged) + 1, n_rows, width // merged))
    buffers[:, 0] = 1
    now, then = buffers.unbind(0)
    for i, e_i in enumerate(e.view(n_rows, merged, width // merged).unbind(1), 1):
        d = min(degree, i)
        torch.addcmul(now[1 : d + 1], now[:d], e_i, out=then[1 : d + 1])
        now, then = then, now
    return product(now[1:].transpose(1, 2).contiguous(), degree, merged)


def product(polynomials: Tensor, degree: int, factors: int = 1) -> Tensor:
    """Multiply polynomials (d, lanes, N) of so many factors each: (degree, N), or fewer coefficients."""
    while polynomials.shape[1] > 1:
        if polynomials.shape[1] % 2:
            polynomials = F.pad(polynomials, (0, 0, 0, 1))
        factors *= 2
        if largest_coefficient(factors, degree) > _LIMIT_FLOAT32:
            polynomials = polynomials.double()
        left, right = polynomials.chunk(2, 1)
        polynomials = multiply(left, right, degree)
    return polynomials[:, 0]


def multiply(a: Tensor, b: Tensor, degree: int) -> Tensor:
    """Multiply polynomials: (d, ...) to (min(2 d, degree), ...)."""
    d = a.shape[0]
    out = a.new_empty((min(2 * d, degree), *a.shape[1:]))
    torch.add(a, b, out=out[:d])
    if out.shape[0] > d:
        torch.mul(a[d - 1], b[: out.shape[0] - d], out=out[d:])
    for i, a_i in enumerate(a[: d - 1].unbind(0), 1):
        width = min(d, out.shape[0] - i)
        out[i : i + width].addcmul_(a_i, b[:width])
    return out
