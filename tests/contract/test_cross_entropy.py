"""Two losses have cross-entropy as a special case, with all its conventions."""

from __future__ import annotations

import math

import pytest
import torch
from losses import (
    DTYPES,
    REDUCTIONS,
    Loss,
    each,
    exactly_equal,
    random_labels,
    random_scores,
)
from torch import Tensor
from torch.nn import functional as F

cross_entropies = each(
    [
        Loss("smooth_svm", k=1, margin=0.0),
        Loss("lq_loss", q=0.0),
        Loss("smooth_svm_lq", k=1, margin=0.0, q=0.0),
    ]
)


def expect_cross_entropy(
    loss: Loss, scores: Tensor, labels: Tensor, weight: Tensor | None = None, **options: object
) -> None:
    """Loss and gradient, for any upstream gradient, are those of F.cross_entropy in float64."""
    dtype = scores.dtype
    truth = scores.double().requires_grad_()
    wide_weight = None if weight is None else weight.double()
    expected = F.cross_entropy(truth, labels, wide_weight, **options)
    upstream = random_scores(*expected.shape, seed=4).double()
    expected.backward(upstream)

    leaf = scores.detach().requires_grad_()
    found = loss(leaf, labels, weight=weight, **options)
    found.backward(upstream.to(found.dtype))
    tight = 1e-13 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=tight, atol=tight)
    # half a unit in the last place for each rounding: a stored gradient is rounded, scaled and rounded
    gradient = leaf.grad.double()
    roundings = 1 if expected.dim() or dtype == torch.float16 else 2
    rtol = roundings * torch.finfo(dtype).eps / 2 + tight
    atol = tight * float(truth.grad.abs().max())
    torch.testing.assert_close(gradient, truth.grad, rtol=rtol, atol=atol)


@cross_entropies
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignoring", [False, True])
def test_cross_entropy(loss, dtype, reduction, weighted, ignoring):
    scores, labels = random_scores(7, 13, 2, dtype=dtype), random_labels(7, 2, n=13)
    weight = random_scores(13, seed=3).abs() if weighted else None
    if ignoring:
        labels[1, 0] = labels[4, 1] = 4
    else:
        labels[labels == 4] = 5
    expect_cross_entropy(loss, scores, labels, weight, reduction=reduction, ignore_index=4)


@cross_entropies
@pytest.mark.parametrize("shape", [(13,), (5, 13), (5, 13, 2, 3)], ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_shapes(loss, shape, reduction, weighted):
    labels = torch.tensor(4) if len(shape) == 1 else random_labels(5, *shape[2:], n=13)
    weight = random_scores(13, seed=3).abs() if weighted else None
    expect_cross_entropy(loss, random_scores(*shape), labels, weight, reduction=reduction)


@cross_entropies
def test_all_conventions_at_once_with_label_minus_100(loss):
    scores, labels = random_scores(6, 9), torch.tensor([0, -100, 8, 3, -100, 3])
    weight = torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 7, 8])
    expected = F.cross_entropy(scores, labels, weight)
    torch.testing.assert_close(loss(scores, labels, weight=weight), expected)


@cross_entropies
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(11,), (0, 11), (3, 11), (0, 11, 2), (3, 11, 0)], ids=str)
def test_no_row_counts(loss, reduction, weighted, shape):
    labels = torch.full(() if len(shape) == 1 else (shape[0], *shape[2:]), -100)
    options = {"weight": torch.rand(11) if weighted else None, "reduction": reduction}
    scores = random_scores(*shape).requires_grad_()
    expected = F.cross_entropy(scores, labels, **options)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), scores)
    found, gradient = loss.with_gradient(scores, labels, **options)
    exactly_equal(found, expected.detach(), equal_nan=True)
    exactly_equal(gradient, expected_gradient)


@cross_entropies
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_only_weights_of_zero(loss, reduction):
    scores, labels = random_scores(3, 11).requires_grad_(), torch.tensor([3, -100, 5])
    options = {"weight": torch.zeros(11), "reduction": reduction}
    expected = F.cross_entropy(scores, labels, **options)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), scores)
    found, gradient = loss.with_gradient(scores, labels, **options)
    exactly_equal(found, expected.detach(), equal_nan=True)
    exactly_equal(gradient, expected_gradient, equal_nan=True)


@cross_entropies
def test_masked_classes(loss):
    scores, labels = random_scores(4, 11), torch.tensor([0, 4, 5, -100])
    scores[:, [2, 7]] = -math.inf
    scores[1, 4] = -math.inf  # the label
    scores[2, :5] = scores[2, 6:] = -math.inf  # all but the label
    expect_cross_entropy(loss, scores, labels, reduction="none")


@pytest.mark.parametrize("q", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("truncation", [None, 0.5])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_single_class(q, truncation, reduction):
    scores, labels = random_scores(3, 1).requires_grad_(), torch.tensor([0, -100, 0])
    expected = F.cross_entropy(scores, labels, reduction=reduction)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), scores)
    found, gradient = Loss("lq_loss", q=q, truncation=truncation).with_gradient(
        scores, labels, reduction=reduction
    )
    assert not expected.any()
    exactly_equal(found, expected.detach())
    exactly_equal(gradient, expected_gradient)
