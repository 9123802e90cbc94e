"""return_topk_hits: is the label in the top 1, and in the top k?"""

from __future__ import annotations

import math

import pytest
import torch
from losses import (
    DTYPES,
    MODULES,
    REDUCTIONS,
    Loss,
    each,
    exactly_equal,
    random_labels,
    random_scores,
)
from torch import Tensor

C = 11


def of_k(k: int) -> list[Loss]:
    return [
        Loss("smooth_svm", k=k),
        Loss("hard_svm", k=k),
        Loss("lq_loss", k=k),
        Loss("smooth_svm_lq", k=k),
        Loss("smooth_svm_lq", k=k, mix=0.0),
        Loss("smooth_svm_lq", k=k, mix=1.0),
    ]


LOSSES = [loss for k in (1, 3, 10) for loss in of_k(k)]


def truth(scores: Tensor, labels: Tensor, k: int) -> list[bool]:
    """Return the hits of classes in descending order of their scores, equal ones in ascending order of the classes."""
    order = scores.double().sort(dim=1, descending=True, stable=True).indices[:, :k]
    return (order == labels.unsqueeze(1)).any(1).tolist()


@each(LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_against_a_stable_sort(loss: Loss, dtype: torch.dtype, requires_grad: bool) -> None:
    scores, labels = random_scores(64, C, dtype=dtype), random_labels(64, n=C)
    scores[:20] = scores[:20].round()  # ties
    scores[20:30, 3:9] = -math.inf
    labels[20:30] %= 3
    scores[30] = 0
    _, hits = loss(scores.requires_grad_(requires_grad), labels, return_topk_hits=True)
    assert hits.top1.dtype == hits.topk.dtype == torch.bool
    assert hits.top1.tolist() == truth(scores, labels, 1)
    assert hits.topk.tolist() == truth(scores, labels, loss.options["k"])
    assert hits.top1.tolist() == (scores.argmax(1) == labels).tolist()


@each(of_k(3))
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_loss_is_the_same(loss: Loss, reduction: str) -> None:
    scores, labels = random_scores(8, C), random_labels(8, n=C)
    expected = loss.with_gradient(scores, labels, reduction=reduction)
    leaf = scores.clone().requires_grad_()
    found, _ = loss(leaf, labels, reduction=reduction, return_topk_hits=True)
    (gradient,) = torch.autograd.grad(found.sum(), leaf)
    exactly_equal((found.detach(), gradient), expected)


@each(of_k(3))
def test_rows_that_count_for_nothing(loss: Loss) -> None:
    scores, labels = torch.zeros(4, C), torch.tensor([0, -100, 0, 0])
    scores[2, 5] = math.nan
    scores[3, 5] = math.inf
    _, hits = loss(scores, labels, return_topk_hits=True)
    assert hits.top1.tolist() == [True, False, False, False]
    assert hits.topk.tolist() == [True, False, False, False]


@each(of_k(3))
@pytest.mark.parametrize("shape", [(C,), (5, C), (2, C, 3, 4), (0, C)])
def test_shapes(loss: Loss, shape: tuple[int, ...]) -> None:
    of_labels = shape[:-1] if len(shape) < 3 else (shape[0], *shape[2:])
    scores, labels = random_scores(*shape), random_labels(*of_labels, n=C)
    _, hits = loss(scores, labels, return_topk_hits=True)
    assert hits.top1.shape == hits.topk.shape == of_labels
    rows = scores.movedim(min(1, len(shape) - 1), -1).reshape(-1, C)
    assert hits.topk.flatten().tolist() == truth(rows, labels.flatten(), 3)


@pytest.mark.parametrize("name", MODULES)
def test_module(name: str) -> None:
    loss = Loss(name, k=3)
    scores, labels = random_scores(5, C), random_labels(5, n=C)
    expected = loss(scores, labels, return_topk_hits=True)
    exactly_equal(loss.module(return_topk_hits=True)(scores, labels), expected)


@pytest.mark.parametrize("k", [20, 300])
def test_large_k(k: int) -> None:
    scores, labels = random_scores(9, 400), random_labels(9, n=400)
    _, hits = Loss("smooth_svm", k=k)(scores, labels, return_topk_hits=True)
    assert hits.topk.tolist() == truth(scores, labels, k)
