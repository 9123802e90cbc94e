"""Algebra of elementary symmetric polynomials inside a kernel.

The polynomial prod_i (1 + e_i y) is a tuple of its coefficients of y^1, y^2, ...: each a tensor, the
leading 1 implied.  Multiplying two of them merges two disjoint sets of classes, which is what
every reduction here does.  All terms are positive, so nothing cancels.
"""

import triton
import triton.language as tl

# tl.reduce wants a combine function of fixed arity; a degree between two of these is padded.
REDUCIBLE_DEGREES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20)


@triton.jit
def include(r, e):
    """r(y) (1 + e y): r_j += e r_{j-1}."""
    out = (r[0] + e,)
    for j in tl.static_range(1, len(r)):
        out = out + (tl.fma(e, r[j - 1], r[j]),)
    return out


@triton.jit
def multiply(a, b):
    """a(y) b(y), truncated at the degree of a: a_j + b_j + sum_i a_i b_{j-i}, the same bits as b(y) a(y).

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


@triton.jit
def _multiply_2(a1, a2, b1, b2):
    return multiply((a1, a2), (b1, b2))


@triton.jit
def _multiply_3(a1, a2, a3, b1, b2, b3):
    return multiply((a1, a2, a3), (b1, b2, b3))


@triton.jit
def _multiply_4(a1, a2, a3, a4, b1, b2, b3, b4):
    return multiply((a1, a2, a3, a4), (b1, b2, b3, b4))


@triton.jit
def _multiply_5(a1, a2, a3, a4, a5, b1, b2, b3, b4, b5):
    return multiply((a1, a2, a3, a4, a5), (b1, b2, b3, b4, b5))


@triton.jit
def _multiply_6(a1, a2, a3, a4, a5, a6, b1, b2, b3, b4, b5, b6):
    return multiply((a1, a2, a3, a4, a5, a6), (b1, b2, b3, b4, b5, b6))


# fmt: off
@triton.jit
def _multiply_8(a1, a2, a3, a4, a5, a6, a7, a8, b1, b2, b3, b4, b5, b6, b7, b8):
    return multiply((a1, a2, a3, a4, a5, a6, a7, a8), (b1, b2, b3, b4, b5, b6, b7, b8))


@triton.jit
def _multiply_10(
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10,
    b1, b2, b3, b4, b5, b6, b7, b8, b9, b10,
):
    return multiply(
        (a1, a2, a3, a4, a5, a6, a7, a8, a9, a10),
        (b1, b2, b3, b4, b5, b6, b7, b8, b9, b10),
    )


@triton.jit
def _multiply_12(
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12,
    b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12,
):
    return multiply(
        (a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12),
        (b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12),
    )


@triton.jit
def _multiply_14(
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14,
    b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14,
):
    return multiply(
        (a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14),
        (b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14),
    )


@triton.jit
def _multiply_16(
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16,
    b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, b16,
):
    return multiply(
        (a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16),
        (b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, b16),
    )


@triton.jit
def _multiply_20(
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20,
    b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, b16, b17, b18, b19, b20,
):
    return multiply(
        (a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20),
        (b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, b16, b17, b18, b19, b20),
    )
# fmt: on


@triton.jit
def product_over_lanes(r, REDUCIBLE: tl.constexpr):
    """Multiply the polynomials held by the lanes of axis 1; degree len(r), padded to REDUCIBLE."""
    padded = r
    for _ in tl.static_range(len(r), REDUCIBLE):
        padded = padded + (tl.zeros_like(r[0]),)
    if REDUCIBLE == 1:
        product = (tl.sum(r[0], axis=1),)
    elif REDUCIBLE == 2:
        product = tl.reduce(padded, 1, _multiply_2)
    elif REDUCIBLE == 3:
        product = tl.reduce(padded, 1, _multiply_3)
    elif REDUCIBLE == 4:
        product = tl.reduce(padded, 1, _multiply_4)
    elif REDUCIBLE == 5:
        product = tl.reduce(padded, 1, _multiply_5)
    elif REDUCIBLE == 6:
        product = tl.reduce(padded, 1, _multiply_6)
    elif REDUCIBLE == 8:
        product = tl.reduce(padded, 1, _multiply_8)
    elif REDUCIBLE == 10:
        product = tl.reduce(padded, 1, _multiply_10)
    elif REDUCIBLE == 12:
        product = tl.reduce(padded, 1, _multiply_12)
    elif REDUCIBLE == 14:
        product = tl.reduce(padded, 1, _multiply_14)
    elif REDUCIBLE == 16:
        product = tl.reduce(padded, 1, _multiply_16)
    else:
        product = tl.reduce(padded, 1, _multiply_20)
    out = ()
    for j in tl.static_range(len(r)):
        out = out + (product[j],)
    return out
