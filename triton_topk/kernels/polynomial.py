"""Elementary symmetric polynomials are the coefficients of products of 1 + e_i y.

The polynomial prod_i (1 + e_i y) is a tuple of its coefficients of y^1, y^2, ...: each a tensor, the
leading 1 implied.  Multiplying two of them merges two disjoint sets of classes, which is what
every reduction here does.  All terms are positive, so nothing cancels.
"""

import triton
import triton.language as tl

from triton_topk.kernels import tuples
from triton_topk.kernels.tuples import lane_reduction


@triton.jit
def include(r, e):
    """Multiply r(y) by 1 + e y: r_j += e r_{j-1}."""
    out = (r[0] + e,)
    for j in tl.static_range(1, len(r)):
        out = out + (tl.fma(e, r[j - 1], r[j]),)
    return out


@triton.jit
def multiply(a, b):
    """Multiply a(y) b(y), truncated at the degree of a: a_j + b_j + sum_i a_i b_{j-i}, the same bits as b(y) a(y).

    Both are computed where lanes exchange their polynomials, and each lane keeps its own.
    """
    out = ()
    for j in tl.static_range(len(a)):
        coefficient = a[j] + b[j]
        for i in tl.static_range((j + 1) // 2):
            if 2 * i == j - 1:
                coefficient = tl.fma(a[i], b[i], coefficient)
            else:
                # each product rounded by itself: fused with the sum, one of the two would not be
                coefficient += tl.fma(a[i], b[j - 1 - i], 0.0) + tl.fma(a[j - 1 - i], b[i], 0.0)
        out = out + (coefficient,)
    return out


_over_lanes = lane_reduction(multiply)


@triton.jit
def product_over_lanes(r, REDUCIBLE: tl.constexpr):
    """Multiply the polynomials held by the lanes of axis 1; degree len(r), padded to REDUCIBLE."""
    if REDUCIBLE == 1:
        return (tl.sum(r[0], axis=1),)
    else:
        return tuples.first(_over_lanes(tuples.padded(r, 0.0, REDUCIBLE), REDUCIBLE), len(r))
