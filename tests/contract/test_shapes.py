"""Shapes and memory layouts of scores and labels."""

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
    random_labels,
    random_scores,
    variants,
)
from torch import Tensor
from torch.nn import functional as F


@every_loss
def test_a_single_row(loss):
    scores, label = random_scores(11), torch.tensor(3)
    found, gradient = loss.with_gradient(scores, label, reduction="none")
    row, row_gradient = loss.with_gradient(scores[None], label[None], reduction="none")
    assert found.shape == ()
    exactly_equal(found, row[0])
    exactly_equal(gradient, row_gradient[0])
    for reduction in ("mean", "sum"):
        exactly_equal(loss(scores, label, reduction=reduction), found)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_more_dimensions_are_more_rows(loss, reduction):
    scores = random_scores(3, 11, 4, 2)
    labels = random_labels(3, 4, 2, n=11)
    rows = scores.permute(0, 2, 3, 1).reshape(-1, 11)
    found, gradient = loss.with_gradient(scores, labels, reduction=reduction)
    expected, row_gradient = loss.with_gradient(rows, labels.flatten(), reduction=reduction)
    assert found.shape == (labels.shape if reduction == "none" else ())
    exactly_equal(found.flatten(), expected.flatten())
    exactly_equal(gradient.permute(0, 2, 3, 1).reshape(-1, 11), row_gradient)


@every_loss
def test_three_dimensions(loss):
    scores, labels = random_scores(3, 11, 4), random_labels(3, 4, n=11)
    found = loss(scores, labels, reduction="none")
    assert found.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            exactly_equal(found[i, j], loss(scores[i, :, j], labels[i, j]))


@every_loss
@pytest.mark.parametrize("shape", [(0, 11), (0, 11, 3), (2, 11, 0), (0, 5000)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_empty_batches(loss, shape, reduction):
    scores = random_scores(*shape)
    labels = torch.zeros(shape[0], *shape[2:], dtype=torch.int64)
    found, gradient = loss.with_gradient(scores, labels, reduction=reduction)
    exactly_equal(found, F.cross_entropy(scores, labels, reduction=reduction), equal_nan=True)
    assert gradient.shape == scores.shape


# Layouts


@every_loss
def test_non_contiguous_labels(loss):
    scores, labels = random_scores(5, 11), random_labels(5, 2, n=11)
    exactly_equal(loss(scores, labels[:, 1]), loss(scores, labels[:, 1].clone()))
    expanded = torch.tensor(4).expand(5)
    exactly_equal(loss(scores, expanded), loss(scores, expanded.clone()))


def layouts(scores: Tensor) -> dict[str, Tensor]:
    """The same (N, C) scores, laid out otherwise."""
    n_rows, n = scores.shape
    wide = torch.full((n_rows, 2 * n + 3), math.nan)
    wide[:, 3 : 3 + n] = scores
    every_other = torch.full((2 * n_rows, 2 * n), math.nan)
    every_other[::2, 1::2] = scores
    return {
        "transposed": scores.t().contiguous().t(),
        "sliced": wide[:, 3 : 3 + n],
        "stepped": every_other[::2, 1::2],
    }


@every_loss
@pytest.mark.parametrize("layout", ["transposed", "sliced", "stepped"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_layout_does_not_matter(loss, layout, reduction):
    scores, labels = random_scores(6, 11), random_labels(6, n=11)
    laid_out = layouts(scores)[layout]
    assert not laid_out.is_contiguous()
    exactly_equal(
        loss.with_gradient(laid_out, labels, reduction=reduction),
        loss.with_gradient(scores, labels, reduction=reduction),
    )


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_expanded_rows_and_columns(loss, reduction):
    labels = random_labels(6, n=11)
    for narrow in (random_scores(1, 11), random_scores(6, 1)):
        expanded = narrow.expand(6, 11)
        exactly_equal(
            loss.with_gradient(expanded, labels, reduction=reduction),
            loss.with_gradient(expanded.clone(), labels, reduction=reduction),
        )


@every_loss
@pytest.mark.parametrize("shape", [(1, 11), (6, 1)])
def test_gradient_of_what_was_expanded(loss, shape):
    labels = random_labels(6, n=11)
    narrow = random_scores(*shape).requires_grad_()
    loss(narrow.expand(6, 11), labels).backward()
    _, gradient = loss.with_gradient(narrow.detach().expand(6, 11).clone(), labels)
    torch.testing.assert_close(narrow.grad, gradient.sum_to_size(shape))


@each(variants(3))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nothing_of_the_callers_is_changed(loss, dtype, reduction):
    scores, labels = random_scores(6, 11, dtype=dtype), torch.tensor([3, -100, 10, 0, 7, 7])
    weight = torch.rand(11)
    given = (scores, labels, weight)
    before = [x.clone() for x in given]
    upstream = torch.full((6,) if reduction == "none" else (), 3.0)
    upstream = upstream.to(torch.float64 if dtype == torch.float64 else torch.float32)
    scores.requires_grad_()
    found = loss(scores, labels, weight=weight, reduction=reduction)
    kept = found.detach().clone()
    found.backward(upstream)
    for x, expected in zip(given, before, strict=True):
        exactly_equal(x.detach(), expected)
    exactly_equal(found.detach(), kept)
    assert (upstream == 3).all()
