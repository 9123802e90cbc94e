"""The losses do not depend on offsets, the order of the classes, or the other rows."""

from __future__ import annotations

import math

import pytest
import torch
from losses import DTYPES, each, exactly_equal, random_labels, random_scores, variants


@each(variants(1, 5, 10))
@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_offset_invariance(loss, offset):
    # multiples of 1/64: adding the offset is exact in float32
    scores = (random_scores(6, 50) * 64).round() / 64
    labels = random_labels(6, n=50)
    found, gradient = loss.with_gradient(scores, labels, reduction="none")
    shifted, shifted_gradient = loss.with_gradient(scores + offset, labels, reduction="none")
    torch.testing.assert_close(shifted, found, rtol=2e-7, atol=0)
    torch.testing.assert_close(shifted_gradient, gradient, rtol=1e-5, atol=1e-8)


@each(variants(1, 5, 10))
def test_permutation_invariance(loss):
    scores, labels = random_scores(6, 50, dtype=torch.float64), random_labels(6, n=50)
    scores[1] = scores[1].round()
    order = torch.randperm(50, generator=torch.Generator().manual_seed(5))
    found, gradient = loss.with_gradient(scores, labels, reduction="none")
    permuted, permuted_gradient = loss.with_gradient(
        scores[:, order], order.argsort()[labels], reduction="none"
    )
    torch.testing.assert_close(permuted, found, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(permuted_gradient, gradient[:, order], rtol=1e-9, atol=1e-13)


@each(variants(1, 5, 16, 40))
@pytest.mark.parametrize("n", [50, 257])
def test_rows_do_not_influence_each_other(loss, n):
    scores, labels = random_scores(33, n), random_labels(33, n=n)
    found, gradient = loss.with_gradient(scores, labels, reduction="none")
    changed, changed_labels = scores.clone(), labels.clone()
    changed[3] = 1e30
    changed[5, 2] = math.nan
    changed[7, 1:] = -math.inf
    changed[9] *= 1e3
    changed[11] = 0
    changed_labels[13] = -100
    some = [i for i in range(33) if i not in (3, 5, 7, 9, 11, 13)]
    new, new_gradient = loss.with_gradient(changed, changed_labels, reduction="none")
    exactly_equal(new[some], found[some])
    exactly_equal(new_gradient[some], gradient[some])


@each(variants(1, 5, 16, 40))
@pytest.mark.parametrize("n", [50, 257])
def test_size_of_the_batch_matters_to_rounding_only(loss, n):
    # not to the bit: PyTorch's vector instructions and what they leave over round differently
    scores, labels = random_scores(33, n), random_labels(33, n=n)
    found, gradient = loss.with_gradient(scores, labels, reduction="none")
    for rows in (slice(0, 1), slice(8, 9), slice(32, 33), slice(8, 15), slice(16, 33)):
        some, some_gradient = loss.with_gradient(scores[rows], labels[rows], reduction="none")
        torch.testing.assert_close(some, found[rows], rtol=5e-7, atol=0)
        atol = 1e-6 * float(gradient[rows].abs().max())
        torch.testing.assert_close(some_gradient, gradient[rows], rtol=0, atol=atol)


@each(variants(1, 2, 5, 16))
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_scores_have_equal_gradients(loss, dtype):
    labels = torch.tensor([0, 7, 20])
    scores = random_scores(3, 41, dtype=dtype).round()
    scores[1] = 2.5
    scores[2, 5:30] = 9
    _, gradient = loss.with_gradient(scores, labels, reduction="none")
    for s, y, d in zip(scores, labels, gradient, strict=True):
        others = torch.arange(41) != y
        for value in s[others].unique():
            found = d[others & (s == value)].double()
            # some of them may come from another formula
            assert found.max() - found.min() <= 4 * torch.finfo(dtype).eps * d.abs().max()


@each(variants(1, 5))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_the_gradient_sum_to_zero(loss, dtype):
    scores, labels = random_scores(6, 50, dtype=dtype), random_labels(6, n=50)
    _, gradient = loss.with_gradient(scores, labels, reduction="none")
    limit = 20 * torch.finfo(dtype).eps
    assert gradient.sum(1).abs().max() < limit
    assert gradient.any()
    # the hard and the truncated loss are flat in places
    flat = ~gradient.any(1) if loss.name == "hard_svm" or loss.options.get("truncation") else False
    assert ((gradient.gather(1, labels[:, None])[:, 0] < 0) | flat).all()
