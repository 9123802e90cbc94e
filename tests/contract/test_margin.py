"""Margins that are tensors: for each class, for each sample."""

from __future__ import annotations

import math

import pytest
import torch
from losses import REDUCTIONS, Loss, each, exactly_equal, random_labels, random_scores

import triton_topk

N, C = 6, 11
WITH_MARGIN = each(
    [
        Loss("smooth_svm", k=3),
        Loss("smooth_svm", k=3, tau=1e-3, gradient="taylor"),
        Loss("hard_svm", k=3),
        Loss("smooth_svm_lq", k=3),
    ]
)


@WITH_MARGIN
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_margin_for_each_class_is_that_of_the_label(
    loss: Loss, reduction: str, dtype: torch.dtype
) -> None:
    scores, labels = random_scores(N, C, dtype=dtype), random_labels(N, n=C)
    labels[4] = -100
    margin = torch.linspace(0, 3, C, dtype=torch.float64)
    of_samples = margin[labels.clamp(min=0)].unsqueeze(1)
    expected = loss.with_gradient(scores, labels, margin=of_samples, reduction=reduction)
    exactly_equal(loss.with_gradient(scores, labels, margin=margin, reduction=reduction), expected)


@WITH_MARGIN
def test_a_margin_for_each_sample_is_the_number(loss: Loss) -> None:
    scores, labels = random_scores(N, C), random_labels(N, n=C)
    margin = torch.linspace(0, 3, N, dtype=torch.float64).unsqueeze(1)
    losses, gradients = loss.with_gradient(scores, labels, margin=margin, reduction="none")
    for i in range(N):
        expected = loss.with_gradient(scores, labels, margin=margin[i].item(), reduction="none")
        torch.testing.assert_close(losses[i], expected[0][i])
        torch.testing.assert_close(gradients[i], expected[1][i])


@WITH_MARGIN
@pytest.mark.parametrize("margin", [torch.tensor(0.5), torch.full((C,), 0.5)])
def test_equal_margins_are_the_number(loss: Loss, margin: torch.Tensor) -> None:
    scores, labels = random_scores(N, C), random_labels(N, n=C)
    expected = loss.with_gradient(scores, labels, margin=0.5)
    exactly_equal(loss.with_gradient(scores, labels, margin=margin), expected)


@WITH_MARGIN
def test_as_many_samples_as_classes(loss: Loss) -> None:
    """A tensor (C,) is always of the classes."""
    scores, labels = random_scores(C, C), random_labels(C, n=C)
    margin = torch.linspace(0, 3, C)
    expected = loss(scores, labels, margin=margin[labels].unsqueeze(1))
    exactly_equal(loss(scores, labels, margin=margin), expected)


@WITH_MARGIN
def test_segmentation(loss: Loss) -> None:
    scores, labels = random_scores(2, C, 3, 4), random_labels(2, 3, 4, n=C)
    margin = torch.rand(C)
    of_samples = margin[labels].unsqueeze(1)
    rows = scores.movedim(1, -1).reshape(-1, C)
    expected = loss(rows, labels.reshape(-1), margin=margin, reduction="none").reshape(2, 3, 4)
    exactly_equal(loss(scores, labels, margin=margin, reduction="none"), expected)
    exactly_equal(loss(scores, labels, margin=of_samples, reduction="none"), expected)


@WITH_MARGIN
@pytest.mark.parametrize("shape", [(), (1,), (C,)])
def test_one_sample(loss: Loss, shape: tuple[int, ...]) -> None:
    scores, label = random_scores(C), torch.tensor(4)
    expected = loss(scores, label, margin=0.5)
    exactly_equal(loss(scores, label, margin=torch.full(shape, 0.5)), expected)


@WITH_MARGIN
def test_nan_stays_in_its_row(loss: Loss) -> None:
    scores, labels = random_scores(4, C), torch.tensor([0, 1, -100, 3])
    margin = torch.tensor([1.0, math.nan, math.nan, 1.0]).unsqueeze(1)
    losses, gradient = loss.with_gradient(scores, labels, margin=margin, reduction="none")
    assert losses.isnan().tolist() == [False, True, False, False]
    assert gradient.isnan().any(1).tolist() == [False, True, False, False]
    assert (gradient[2] == 0).all()


@WITH_MARGIN
def test_a_module_keeps_it_as_a_buffer(loss: Loss) -> None:
    margin = torch.linspace(0, 1, C)
    module = loss.module(margin=margin)
    scores, labels = random_scores(N, C), random_labels(N, n=C)
    exactly_equal(module(scores, labels), loss(scores, labels, margin=margin))
    exactly_equal(module.state_dict()["margin"], margin)
    assert module.double().margin.dtype == torch.float64
    assert "margin" not in loss.module().state_dict()


@WITH_MARGIN
def test_a_margin_that_was_set_since(loss: Loss) -> None:
    scores, labels, margin = random_scores(N, C), random_labels(N, n=C), torch.linspace(0, 1, C)
    module = loss.module()
    module.margin = margin
    exactly_equal(module(scores, labels), loss(scores, labels, margin=margin))
    assert list(module.state_dict()) == ["margin"]
    assert module.double().margin.dtype == torch.float64
    module.margin = 2.0
    exactly_equal(module(scores, labels), loss(scores, labels, margin=2.0))
    assert not module.state_dict()
    module.margin = torch.nn.Parameter(margin, requires_grad=False)
    module.margin = 2.0
    assert not module.state_dict()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch.func's own
def test_a_mixture_that_is_all_lq_has_no_margin() -> None:
    scores, labels, margin = random_scores(N, C), random_labels(N, n=C), torch.linspace(0, 1, C)

    def mixture(margin: torch.Tensor) -> torch.Tensor:
        return triton_topk.smooth_svm_lq(scores, labels, 2, mix=0.0, margin=margin)

    loss, tangent = torch.func.jvp(mixture, (margin,), (margin,))
    assert torch.equal(loss, triton_topk.lq_loss(scores, labels))
    assert tangent == 0
