"""The algebra of polynomials by itself."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from triton_topk.kernels import polynomial

_PAIRS = 64


@triton.jit
def _multiply(left, right, out, PAIRS: tl.constexpr, DEGREE: tl.constexpr):
    pair = tl.arange(0, PAIRS)
    a = ()
    b = ()
    for j in tl.static_range(DEGREE):
        a = a + (tl.load(left + j * PAIRS + pair),)
        b = b + (tl.load(right + j * PAIRS + pair),)
    product = polynomial.multiply(a, b)
    for j in tl.static_range(DEGREE):
        tl.store(out + j * PAIRS + pair, product[j])


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.full_like(a, torch.nan)
    _multiply[(1,)](a, b, out, PAIRS=_PAIRS, DEGREE=len(a))
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("degree", [1, 2, 3, 5, 10, 16])
def test_a_product_has_the_same_bits_either_way(degree: int, dtype: torch.dtype) -> None:
    """Two lanes that multiply each other's polynomial into their own hold the same one after it."""
    torch.manual_seed(degree)
    a, b = torch.rand(2, degree, _PAIRS, dtype=dtype)
    found = product(a, b)
    assert torch.equal(found, product(b, a))

    # in float64, with the leading 1 that the kernels leave out
    one = torch.ones(1, _PAIRS, dtype=torch.float64)
    x, y = torch.cat([one, a.double()]), torch.cat([one, b.double()])
    expected = [sum(x[i] * y[j - i] for i in range(j + 1)) for j in range(1, degree + 1)]
    torch.testing.assert_close(found.double(), torch.stack(expected), rtol=1e-6, atol=0)
