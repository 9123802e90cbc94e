"""The promised accuracy, over the adversarial suite, against 60 digits."""

from itertools import islice

import pytest
import torch
from accuracy import assert_promised, errors
from adversarial import cases

import triton_topk

pytestmark = pytest.mark.usefixtures("chosen_backend", "poison")

SHAPES = [
    (1, 2), (1, 13), (2, 3), (2, 30), (3, 4), (3, 50), (5, 6), (5, 7), (5, 24), (5, 100), (8, 9),
    (8, 40), (10, 11), (10, 14), (10, 40), (12, 13), (12, 100), (16, 17), (16, 20), (16, 64),
    (16, 150), (20, 21), (20, 25), (20, 80), (50, 51), (50, 60), (50, 120),
]  # fmt: skip


@pytest.mark.exhaustive(one_in=2)
@pytest.mark.parametrize(("k", "n"), SHAPES)
def test_float32(k: int, n: int) -> None:
    assert_promised(cases(k, n), k, n)


def test_float32_k_in_the_hundreds() -> None:
    assert_promised(islice(cases(300, 310), 0, None, 9), 300, 310)


@pytest.mark.parametrize(("k", "n"), [(1, 13), (5, 6), (5, 24), (16, 17), (16, 64), (50, 60)])
def test_float64(k: int, n: int) -> None:
    for e in errors(cases(k, n), torch.float64):
        # |z| 2^-52 of the most extreme case, |z| = 1e4, and what k steps of rounding leave
        assert e.loss <= 1e-12, e
        assert e.gradient <= 1e-12, e


@pytest.mark.parametrize(("k", "n"), [(128, 200), (256, 400)])
def test_float64_k_in_the_hundreds(k: int, n: int) -> None:
    """No score may be left to the polynomial of the rest where about 3 k / 2 scores are nearly equal."""
    for e in errors(islice(cases(k, n), 0, None, 7), torch.float64):
        assert e.loss <= 1e-12, e
        assert e.gradient <= 1e-12, e


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("k", "n"), [(1, 13), (5, 24), (16, 64)])
def test_half_precision_is_float32_inside(k: int, n: int, dtype: torch.dtype) -> None:
    for case in cases(k, n):
        scores = case.scores.to(dtype)
        wide = scores.float().requires_grad_()
        narrow = scores.clone().requires_grad_()
        arguments = {"tau": case.tau, "margin": case.margin, "reduction": "none"}
        expected = triton_topk.smooth_svm(wide, case.labels, k, **arguments)
        got = triton_topk.smooth_svm(narrow, case.labels, k, **arguments)
        expected.sum().backward()
        got.sum().backward()
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(narrow.grad, wide.grad.to(dtype), rtol=0, atol=0, equal_nan=True)
