"""A divisor of the caller's, for gradients accumulated over several batches."""

from __future__ import annotations

import pytest
import torch
from losses import DTYPES, Loss, every_loss, exactly_equal, random_labels, random_scores
from torch import Tensor

import triton_topk

N, C = 6, 11
NORMALIZERS = [
    7,
    7.0,
    torch.tensor(7),
    torch.tensor(7, dtype=torch.int32),
    torch.tensor(7.0, dtype=torch.bfloat16),
    torch.tensor([7.0], dtype=torch.float64),
]


@every_loss
@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=repr)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_divides_the_sum(
    loss: Loss, normalizer: float | Tensor, reduction: str, dtype: torch.dtype
) -> None:
    scores, labels = random_scores(N, C, dtype=dtype), random_labels(N, n=C)
    labels[2] = -100
    weight = torch.linspace(0.5, 2, C)
    found = loss.with_gradient(
        scores, labels, weight=weight, reduction=reduction, normalizer=normalizer
    )
    total, gradient = loss.with_gradient(scores, labels, weight=weight, reduction="sum")
    torch.testing.assert_close(found[0], total / 7)
    torch.testing.assert_close(found[1], gradient / 7)


@every_loss
def test_the_number_of_labels_gives_the_mean(loss: Loss) -> None:
    scores, labels = random_scores(N, C), random_labels(N, n=C)
    labels[2] = -100
    expected = loss.with_gradient(scores, labels)
    exactly_equal(loss.with_gradient(scores, labels, normalizer=N - 1), expected)


@every_loss
def test_parts_of_a_batch_add_up_to_it(loss: Loss) -> None:
    scores, labels = random_scores(N, C), random_labels(N, n=C)
    labels[[0, 1, 4]] = -100
    whole = loss.with_gradient(scores, labels)[1]
    count = (labels != -100).sum()
    module = loss.module()
    leaf = scores.clone().requires_grad_()
    for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
        module(leaf[part], labels[part], normalizer=count).backward()
    torch.testing.assert_close(leaf.grad, whole)


@every_loss
def test_an_empty_batch_is_zero(loss: Loss) -> None:
    found, gradient = loss.with_gradient(random_scores(0, C), random_labels(0, n=C), normalizer=3)
    assert found == 0
    assert gradient.shape == (0, C)


@pytest.mark.parametrize("training", [True, False])
def test_truncated_lq_loss(training: bool) -> None:
    scores, labels, indices = random_scores(N, C), random_labels(N, n=C), torch.arange(N)
    module = triton_topk.nn.TruncatedLqLoss(N, truncation=0.05).train(training)
    with torch.no_grad():
        module.prune(scores, labels, indices)
    expected = module(scores, labels, indices) * N / 100
    torch.testing.assert_close(module(scores, labels, indices, normalizer=100), expected)
