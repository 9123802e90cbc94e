"""Reductions, weights and ignored rows."""

from __future__ import annotations

import math

import pytest
import torch
from losses import (
    DTYPES,
    REDUCTIONS,
    each,
    every_loss,
    exactly_equal,
    random_scores,
    variants,
)

from triton_topk.batch import sum_of_weights


@each(variants(1, 5))
def test_reductions_of_a_weighted_loss(loss):
    scores, labels = random_scores(6, 11), torch.tensor([3, -100, 10, 0, 3, -100])
    weight = torch.arange(11) / 4 + 0.5
    counted = labels != -100
    w = torch.where(counted, weight[labels.clamp(0)], 0)
    plain, plain_gradient = loss.with_gradient(scores, labels.clamp(0), reduction="none")

    found, gradient = loss.with_gradient(scores, labels, weight=weight, reduction="none")
    torch.testing.assert_close(found, w * plain)
    torch.testing.assert_close(gradient, w[:, None] * plain_gradient)
    total, gradient = loss.with_gradient(scores, labels, weight=weight, reduction="sum")
    torch.testing.assert_close(total, found.sum())
    torch.testing.assert_close(gradient, w[:, None] * plain_gradient)
    mean, gradient = loss.with_gradient(scores, labels, weight=weight, reduction="mean")
    torch.testing.assert_close(mean, found.sum() / w.sum())
    torch.testing.assert_close(gradient, w[:, None] * plain_gradient / w.sum())


@pytest.mark.parametrize("n_rows", [0, 1, 40_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_divisor_of_a_mean(n_rows, dtype):
    torch.manual_seed(n_rows)
    labels = torch.randint(11, (n_rows,)).masked_fill_(torch.rand(n_rows) < 0.2, -100)
    weight = torch.rand(11, dtype=torch.float64)
    counted = labels[labels != -100]
    found = sum_of_weights(labels, None, None, dtype, -100)
    assert found == len(counted)
    weighted = sum_of_weights(labels, weight, None, dtype, -100)
    torch.testing.assert_close(weighted, weight[counted].sum().to(dtype), rtol=1e-6, atol=0)
    of_samples = torch.rand(n_rows, dtype=torch.float64)
    both = sum_of_weights(labels, weight, of_samples, dtype, -100)
    expected = (weight[counted] * of_samples[labels != -100]).sum().to(dtype)
    torch.testing.assert_close(both, expected, rtol=1e-6, atol=0)
    assert found.dtype == weighted.dtype == both.dtype == dtype


def test_the_divisor_of_a_mean_reads_no_weight_of_what_is_no_class():
    """On a GPU, where nobody has looked at the labels, that would end the process."""
    labels = torch.tensor([0, 2**40, -1, 3])
    weight = torch.tensor([1.0, 2.0, 4.0])
    for of_samples in (None, torch.ones(4)):
        assert sum_of_weights(labels, weight, of_samples, torch.float32, -100).isfinite()


@every_loss
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_ignored_rows_count_for_nothing_whatever_they_hold(loss, dtype, reduction, bad):
    scores, labels = random_scores(5, 11, dtype=dtype), torch.tensor([3, -100, 10, 0, -100])
    scores[1] = bad
    scores[4, 6] = bad
    kept = labels != -100
    found, gradient = loss.with_gradient(scores, labels, reduction=reduction)
    expected, expected_gradient = loss.with_gradient(
        scores[kept], labels[kept], reduction=reduction
    )
    torch.testing.assert_close(found[kept] if reduction == "none" else found, expected)
    torch.testing.assert_close(gradient[kept], expected_gradient)
    assert (gradient[~kept] == 0).all()
    if reduction == "none":
        assert (found[~kept] == 0).all()


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_ignored_rows_have_the_weight_of_no_class(loss, reduction, bad):
    scores, labels = random_scores(4, 11), torch.tensor([3, -100, 9, 3])
    weight = torch.ones(11)
    weight[[0, 10]] = bad
    found = loss.with_gradient(scores, labels, weight=weight, reduction=reduction)
    torch.testing.assert_close(found, loss.with_gradient(scores, labels, reduction=reduction))


@every_loss
def test_ignore_index_that_is_a_class(loss):
    scores, labels = random_scores(4, 11), torch.tensor([3, 2, 10, 2])
    scores[0, [0, 2, 7]] = 9
    found, gradient = loss.with_gradient(scores, labels, ignore_index=2)
    # in the rows that count it is a class as any other
    expected, expected_gradient = loss.with_gradient(scores[[0, 2]], labels[[0, 2]])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient[[0, 2]], expected_gradient)
    assert gradient[0, 2] != 0
    assert not gradient[[1, 3]].any()


@every_loss
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_rows", [0, 3])
def test_no_row_counts(loss, dtype, weighted, n_rows):
    scores, labels = random_scores(n_rows, 11, dtype=dtype), torch.full((n_rows,), -100)
    weight = torch.rand(11) if weighted else None
    mean, gradient = loss.with_gradient(scores, labels, weight=weight)
    assert mean.isnan()
    assert gradient.shape == scores.shape
    # as torch.nn.functional.cross_entropy: ignored rows have a zero gradient in this mean too
    assert (gradient == 0).all()
    total, gradient = loss.with_gradient(scores, labels, weight=weight, reduction="sum")
    assert total == 0
    assert (gradient == 0).all()
    found, gradient = loss.with_gradient(scores, labels, weight=weight, reduction="none")
    exactly_equal(found, torch.zeros(n_rows), check_dtype=False)
    assert (gradient == 0).all()


@every_loss
def test_weights_of_zero(loss):
    scores, labels = random_scores(3, 11), torch.tensor([3, 4, 5])
    weight = torch.ones(11)
    weight[4] = 0
    found, gradient = loss.with_gradient(scores, labels, weight=weight)
    expected, expected_gradient = loss.with_gradient(scores[[0, 2]], labels[[0, 2]])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient[[0, 2]], expected_gradient)
    assert not gradient[1].any()
