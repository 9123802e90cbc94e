"""smooth_svm_lq is mix * smooth_svm + (1 - mix) * lq_loss, within rounding."""

from __future__ import annotations

import math
from collections.abc import Callable

import adversarial
import adversarial_lq
import pytest
import torch
from torch import Tensor

from triton_topk import lq_loss, smooth_svm, smooth_svm_lq

pytestmark = pytest.mark.usefixtures("chosen_backend", "poison")


def run(
    loss: Callable[..., Tensor], scores: Tensor, *arguments: object, **keywords: object
) -> tuple[Tensor, Tensor]:
    """Losses (N,) and their gradient (N, C)."""
    scores = scores.detach().clone().requires_grad_()
    losses = loss(scores, *arguments, reduction="none", **keywords)
    return losses.detach(), *torch.autograd.grad(losses.sum(), scores)


def assert_sum_of_both(
    scores: Tensor,
    labels: Tensor,
    k: int,
    *,
    q: float = 0.7,
    mix: float = 0.3,
    truncation: float | None = None,
    **of_svm: object,
) -> None:
    losses, gradient = run(
        smooth_svm_lq, scores, labels, k, q, mix=mix, truncation=truncation, **of_svm
    )
    assert gradient.dtype == scores.dtype
    wide = scores.to(losses.dtype)
    svm, svm_gradient = run(smooth_svm, wide, labels, k, **of_svm)
    lq, lq_gradient = run(lq_loss, wide, labels, q, truncation=truncation)
    eps = torch.finfo(losses.dtype).eps
    expected = mix * svm + (1 - mix) * lq
    torch.testing.assert_close(losses, expected, rtol=4 * eps, atol=0, equal_nan=True)
    expected = mix * svm_gradient + (1 - mix) * lq_gradient
    # of different signs they can cancel, to nothing that is rounding
    size = (mix * svm_gradient).abs() + ((1 - mix) * lq_gradient).abs()
    limit = (4 * eps * size).amax(1, keepdim=True)
    if scores.dtype != losses.dtype:
        limit = limit + torch.finfo(scores.dtype).eps * expected.abs()
        limit = limit + torch.finfo(scores.dtype).smallest_normal
    wrong = (gradient.to(losses.dtype) - expected).abs()
    assert (wrong <= limit)[~expected.isnan()].all(), (wrong / limit).amax()
    assert torch.equal(gradient.isnan(), expected.isnan())


@pytest.mark.exhaustive(one_in=3)
@pytest.mark.parametrize("gradient", ["exact", "taylor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("k", "n"), [(1, 2), (1, 13), (5, 6), (5, 24), (16, 64), (60, 70)])
def test_on_rows_hard_for_the_svm(k: int, n: int, dtype: torch.dtype, gradient: str) -> None:
    for case in adversarial.cases(k, n):
        assert_sum_of_both(
            case.scores.to(dtype),
            case.labels,
            k,
            tau=case.tau,
            margin=case.margin,
            gradient=gradient,
        )


@pytest.mark.parametrize("q", adversarial_lq.QS)
@pytest.mark.parametrize("truncation", [None, 0.5])
def test_on_rows_hard_for_lq(q: float, truncation: float | None) -> None:
    for case in adversarial_lq.cases(10):
        assert_sum_of_both(case.scores.float(), case.labels, 3, q=q, truncation=truncation)


@pytest.mark.parametrize("mix", [0.0, 1e-3, 0.5, 1.0])
def test_any_mix(mix: float) -> None:
    torch.manual_seed(0)
    scores, labels = 5 * torch.randn(20, 12), torch.arange(20) % 12
    assert_sum_of_both(scores, labels, 4, mix=mix)
    # alone, each is itself
    for alone, loss, arguments in ((1.0, smooth_svm, (4,)), (0.0, lq_loss, (0.7,))):
        ours = run(smooth_svm_lq, scores, labels, 4, 0.7, mix=alone)
        theirs = run(loss, scores, labels, *arguments)
        for x, y in zip(ours, theirs, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    for case in adversarial_lq.cases(10):
        assert_sum_of_both(case.scores.to(dtype), case.labels, 3)


def test_masked_nan_and_infinite_scores() -> None:
    torch.manual_seed(0)
    scores = torch.randn(8, 6)
    labels = torch.tensor([1, 2, 3, 4, 0, 1, 5, 0])
    scores[0, 1] = math.nan  # the label
    scores[1, 0] = math.nan
    scores[2, 3] = math.inf  # the label
    scores[3, 0] = math.inf
    scores[4] = -math.inf
    scores[5, 1] = -math.inf  # the label
    scores[6, :4] = -math.inf
    for truncation in (None, 0.5):
        for k in (1, 2):
            assert_sum_of_both(scores, labels, k, truncation=truncation)
    losses, gradient = run(smooth_svm_lq, scores, labels, 2)
    assert losses.isnan().tolist() == [True] * 5 + [False] * 3
    assert gradient.isnan().all(1).tolist() == [True] * 5 + [False] * 3
